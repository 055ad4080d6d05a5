/** The panels at the right, as tabs: arrow keys move between them. */

import { Change } from "./change/change";
import { Chat } from "./chat/chat";
import { Compare } from "./compare/compare";
import { Generate } from "./generate/generate";
import { keep } from "./keep";
import * as store from "./store";
import { Table } from "./table/table";

const TABS = [
  ["ask", "Ask"],
  ["generate", "Generate"],
  ["change", "Change"],
  ["compare", "Compare"],
  ["table", "Table"],
] as const;
type Name = (typeof TABS)[number][0];

export function Panel() {
  const now = store.panel.value;
  const show = (name: Name): void => {
    store.panel.value = name;
    keep({ panel: name });
  };
  const onKey = (event: KeyboardEvent): void => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const place = TABS.findIndex(([name]) => name === now);
    const [next] = TABS[(place + by + TABS.length) % TABS.length];
    show(next);
    document.getElementById(`tab-${next}`)?.focus();
  };
  return (
    <aside class="panel" id="panel" aria-label="Ask and do" tabIndex={-1}>
      <div class="tabs" role="tablist" aria-label="Panels" onKeyDown={onKey}>
        {TABS.map(([name, said]) => (
          <button
            key={name}
            id={`tab-${name}`}
            type="button"
            role="tab"
            aria-selected={now === name}
            aria-controls={`panel-${name}`}
            tabIndex={now === name ? 0 : -1}
            onClick={() => show(name)}
          >
            {said}
          </button>
        ))}
      </div>
      {TABS.map(([name]) => (
        <div key={name} id={`panel-${name}`} class="tab-panel" role="tabpanel" aria-labelledby={`tab-${name}`} hidden={now !== name}>
          {name === "ask" && <Chat />}
          {name === "generate" && <Generate />}
          {name === "change" && <Change />}
          {name === "compare" && <Compare />}
          {name === "table" && <Table />}
        </div>
      ))}
    </aside>
  );
}
