// @ts-check
// What is asked before a state is applied, and when two people changed it.

import { EFFECTS, changesBetween, effectOf, mergeStates } from "./changes.js";
import { openDialog } from "./dialog.js";
import { make } from "./dom.js";
import { formatCount } from "./format.js";

/**
 * @typedef {import("./wire.js").DesiredState} DesiredState
 * @typedef {import("./live.js").LiveState} LiveState
 */

/**
 * Whether a person who sees what differs, and what that does, agrees.
 * @param {DesiredState} from
 * @param {DesiredState} to
 * @param {LiveState} fleet
 * @returns {Promise<boolean>}
 */
export function confirmChanges(from, to, fleet) {
  return new Promise((resolve) => {
    let agrees = false;
    const apply = make(
      "button",
      {
        type: "button",
        class: "primary",
        onClick: () => {
          agrees = true;
          dialog.close();
        },
      },
      "Apply",
    );
    const cancel = make("button", { type: "button", onClick: () => dialog.close() }, "Cancel");
    const content = make(
      "div",
      {},
      changesTable(from, to),
      make("p", { class: "effect", text: describeEffect(from, to, fleet) }),
      make("div", { class: "actions" }, cancel, apply),
    );
    const dialog = openDialog({
      title: "Apply these changes?",
      content,
      className: "changes",
      onClose: () => resolve(agrees),
    });
    apply.focus();
  });
}

/**
 * @param {object} options
 * @param {DesiredState} options.base what both began with
 * @param {DesiredState} options.mine
 * @param {DesiredState} options.theirs
 * @param {string} options.who a sentence
 * @param {() => void} options.onTheirs
 * @param {(merged: DesiredState) => void} options.onMerged
 */
export function showConflict({ base, mine, theirs, who, onTheirs, onMerged }) {
  const merged = mergeStates(base, mine, theirs);
  const clash =
    merged.conflicts.length === 0
      ? "Your changes touch other fields."
      : `You both changed: ${merged.conflicts.join(", ")}. Keeping yours replaces theirs there.`;
  /** @param {() => void} act */
  const closing = (act) => () => {
    dialog.close();
    act();
  };
  const content = make(
    "div",
    {},
    make("p", { text: `${who} Their changes:` }),
    changesTable(base, theirs),
    make("p", { text: clash }),
    make(
      "div",
      { class: "actions" },
      make("button", { type: "button", onClick: closing(() => {}) }, "Go on editing"),
      make("button", { type: "button", onClick: closing(onTheirs) }, "Load theirs, drop mine"),
      make(
        "button",
        { type: "button", class: "primary", onClick: closing(() => onMerged(merged.state)) },
        "Keep mine on top of theirs",
      ),
    ),
  );
  const dialog = openDialog({ title: "The state was changed meanwhile", content, className: "changes" });
}

/**
 * @param {DesiredState} from
 * @param {DesiredState} to
 * @param {LiveState} fleet
 */
function describeEffect(from, to, fleet) {
  const effect = effectOf(from, to);
  if (effect === "stored" || effect === "nothing") return EFFECTS[effect];
  const busy = [...fleet.agents.values()].reduce((sum, one) => sum + one.slots_processing, 0);
  const running =
    busy === 0 ? "" : ` ${formatCount(busy, "request")} ${busy === 1 ? "runs" : "run"} right now.`;
  return `${EFFECTS[effect]} It concerns ${formatCount(fleet.agents.size, "agent")}.${running}`;
}

/**
 * @param {DesiredState} from
 * @param {DesiredState} to
 */
function changesTable(from, to) {
  const rows = changesBetween(from, to).map((change) =>
    make(
      "tr",
      { "data-change": change.key },
      make("th", { scope: "row", text: change.label }),
      make("td", {}, make("del", { text: change.from })),
      make("td", {}, make("ins", { text: change.to })),
    ),
  );
  return make(
    "table",
    { class: "changes-table" },
    make(
      "thead",
      {},
      make(
        "tr",
        {},
        make("th", { scope: "col", text: "What" }),
        make("th", { scope: "col", text: "From" }),
        make("th", { scope: "col", text: "To" }),
      ),
    ),
    make("tbody", {}, ...rows),
  );
}
