/** At the top: the file, the model, light and dark. */

import { changeModel } from "./annotating";
import { close } from "./opening";
import * as store from "./store";
import { isDark, toggleTheme } from "./theme";
import { count } from "./words";

export function Header() {
  const file = store.file.value;
  const models = store.about.value?.models ?? [];
  return (
    <header>
      <a class="skip" href="#panel">
        To the panel
      </a>
      <p class="name">scmulan</p>
      {file && (
        <div class="file">
          <strong title={file.filename}>{file.filename}</strong>
          <span>
            {count(file.cells)} cells, {count(file.genes)} genes
          </span>
          <button type="button" onClick={close}>
            Other file
          </button>
        </div>
      )}
      <span class="grow" />
      {models.length > 0 && (
        <label>
          Model
          <select value={store.model.value} onChange={(event) => void changeModel(event.currentTarget.value)}>
            {models.map((each) => (
              <option key={each.id} value={each.id}>
                {each.id}
                {each.root ? ` (adapter of ${each.root})` : ""}
              </option>
            ))}
          </select>
        </label>
      )}
      <button type="button" aria-pressed={isDark.value} onClick={toggleTheme} title="Light or dark">
        Dark
      </button>
    </header>
  );
}
