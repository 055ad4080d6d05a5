/** The page: header, map with legend at the left, panels at the right, work in progress below. */

import { CellMap } from "./map/map";
import { Legend } from "./map/legend";
import { Toolbar } from "./map/toolbar";
import { Header } from "./header";
import { Notices } from "./notices";
import { Panel } from "./panel";
import { Start } from "./open/start";
import * as store from "./store";
import { WorkStrip } from "./work";

export function App() {
  const hasFile = store.file.value !== null;
  return (
    <>
      <Header />
      <Notices />
      <main class="page" data-open={hasFile}>
        <section class="cells" aria-label={hasFile ? "Cells" : "Begin"}>
          {hasFile ? (
            <>
              <h1 class="hidden">Cells of {store.file.value?.filename}</h1>
              <Toolbar />
              <div class="map-row">
                <Legend />
                <div class="map-box">
                  <CellMap />
                  {!store.layout.value && (
                    <p class="map-waiting">
                      <span class="spinner" aria-hidden="true" /> Making a first map…
                    </p>
                  )}
                </div>
              </div>
            </>
          ) : (
            <Start />
          )}
        </section>
        <Panel />
      </main>
      <WorkStrip />
      <p class="hidden" role="status" aria-live="polite">
        {store.told.value}
      </p>
    </>
  );
}
