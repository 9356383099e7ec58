// The anywidget of `run.watch()`: hands what the kernel sends to the view, and the reader's Stop back to the kernel.

import { createRunView } from "./view.js";

function render({ model, el: root }) {
  const onStop = model.get("can_stop") ? () => model.send({ command: "stop" }) : null;
  const view = createRunView(root, { onStop });
  const handlers = {
    "change:picture": () => view.update(model.get("picture")),
    "change:pulse": () => view.pulse(model.get("pulse")),
    "change:stop_state": () => view.stop(model.get("stop_state")),
  };
  for (const [name, handler] of Object.entries(handlers)) {
    model.on(name, handler);
    handler();
  }
  return () => {
    for (const [name, handler] of Object.entries(handlers)) model.off(name, handler);
    view.destroy();
  };
}

export default { render };
