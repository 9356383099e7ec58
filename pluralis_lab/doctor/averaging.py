"""A self-test of hivemind's all-reduce by value: two real peers on loopback, compared with the true mean.

hivemind 1.1.12 on numpy >= 2.4 averages half of the input with its 8-bit compressions and reports success, so that only the
values show it. Needs hivemind, so only a child process of the doctor imports this.
"""

import asyncio
from typing import Any

import torch
from hivemind.averaging.allreduce import AllReduceRunner
from hivemind.compression import Float16Compression, NoCompression, Uniform8BitQuantization
from hivemind.p2p import P2P

NUM_VALUES = 20_000
TIMEOUT_S = 30.0


async def averaging_errors() -> dict[str, float]:
    """Return, for each compression, the largest absolute error of any peer's average over values of unit scale."""
    first = await P2P.create(host_maddrs=["/ip4/127.0.0.1/tcp/0"], use_relay=False, use_auto_relay=False)
    maddrs = await first.get_visible_maddrs()
    second = await P2P.create(initial_peers=maddrs, host_maddrs=["/ip4/127.0.0.1/tcp/0"], use_relay=False, use_auto_relay=False)
    try:
        await first.wait_for_at_least_n_peers(1)
        await second.wait_for_at_least_n_peers(1)
        compressions = {"none": NoCompression(), "float16": Float16Compression(), "8-bit": Uniform8BitQuantization()}
        return {name: await _error([first, second], name, compression) for name, compression in compressions.items()}
    finally:
        await second.shutdown()
        await first.shutdown()


async def _error(peers: list[P2P], name: str, compression: Any) -> float:
    tensors = [torch.randn(NUM_VALUES, generator=torch.Generator().manual_seed(number)) for number in range(len(peers))]
    mean = torch.stack(tensors).mean(dim=0)
    runners = [
        AllReduceRunner(
            p2p=p2p,
            servicer_type=AllReduceRunner,
            prefix=f"doctor-{name}",
            group_id=f"doctor-{name}".encode(),
            tensors=[tensor.clone()],
            ordered_peer_ids=[peer.peer_id for peer in peers],
            peer_fractions=(0.5, 0.5),
            sender_timeout=TIMEOUT_S / 3,
            reducer_timeout=TIMEOUT_S / 2,
            compression=compression,
        )
        for p2p, tensor in zip(peers, tensors, strict=True)
    ]
    for runner, p2p in zip(runners, peers, strict=True):
        await runner.add_p2p_handlers(p2p, namespace=f"doctor-{name}")
    async with asyncio.timeout(TIMEOUT_S):
        deltas = await asyncio.gather(*(_collect(runner) for runner in runners))
    return max(float((tensor + delta - mean).abs().max()) for tensor, delta in zip(tensors, deltas, strict=True))


async def _collect(runner: AllReduceRunner) -> torch.Tensor:
    return torch.cat([delta.flatten() async for delta in runner])
