// Whose download it is that the server tells of.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Downloads } from "../../js/ui/downloads.mjs";

/** A graph with one LoRA node; the shipped workflows give theirs the same id. */
function graphOf(id) {
  const node = { id: 7, comfyClass: "FluxHotswapLora", widgets: [{ name: "source", value: "a/b" }], inputs: [] };
  return { id, node, getNodeById: (asked) => (asked === 7 ? node : null) };
}

function followed(app) {
  const heard = {};
  const addEventListener = (name, take) => (heard[name] = take);
  const downloads = new Downloads(app, { addEventListener }, () => {}, () => {});
  downloads.listen();
  const tell = (name, detail = {}) => heard[name]({ detail });
  const progress = () => tell("progress", { node: "7", value: 1, max: 9, prompt_id: "p" });
  const fail = () => tell("execution_error", { node_id: "7", exception_message: "source: is gone" });
  return { downloads, tell, progress, fail };
}

for (const [name, appOf] of Object.entries({
  "newer editors": (graph) => ({ rootGraph: graph }),
  "older ones": (graph) => ({ graph }),
}))
  test(`a download shows in the workflow that runs only, in ${name}`, () => {
    const [ours, other] = [graphOf("one"), graphOf("two")];
    const app = appOf(ours);
    const { downloads, tell, progress, fail } = followed(app);
    tell("execution_start");
    progress();
    assert.equal(downloads.of(ours.node)?.done, 1);
    Object.assign(app, appOf(other));
    progress();
    assert.equal(downloads.of(other.node), undefined);
    fail();
    assert.equal(downloads.endingOf(other.node), null);
    Object.assign(app, appOf(ours));
    fail();
    assert.equal(downloads.endingOf(ours.node), "failed");
    assert.deepEqual(downloads.nodes(), [ours.node]);
  });

test("a download shows in the tab that runs only, where two have the same template", () => {
  const [ours, other] = [graphOf("template"), graphOf("template")];
  const tabs = [{ path: "workflows/one.json" }, { path: "workflows/one (2).json" }];
  const app = {};
  const open = (graph, tab) => Object.assign(app, { rootGraph: graph, extensionManager: { workflow: { activeWorkflow: tab } } });
  open(ours, tabs[0]);
  const { downloads, tell, progress } = followed(app);
  tell("execution_start");
  open(other, tabs[1]);
  progress();
  assert.deepEqual(downloads.nodes(), []);
  tabs[0].path = "workflows/saved.json";
  open(ours, { ...tabs[0] });
  progress();
  assert.deepEqual(downloads.nodes(), [ours.node], "also once it is saved under another name");
});

test("a download shows that was running when the page was opened", () => {
  const ours = graphOf("one");
  const { downloads, progress } = followed({ rootGraph: ours });
  progress();
  assert.deepEqual(downloads.nodes(), [ours.node]);
});
