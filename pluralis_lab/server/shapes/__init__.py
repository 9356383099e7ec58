"""The shape of every reply and request body: what mypy checks the handlers against and the OpenAPI document is made of."""
