/** Light or dark: as the system says, until the user chooses. */

import { computed, effect, signal } from "@preact/signals";

const NAME = "scmulan.theme";
const system = window.matchMedia?.("(prefers-color-scheme: dark)");
const systemIsDark = signal(system?.matches ?? false);
system?.addEventListener("change", (event) => (systemIsDark.value = event.matches));

const chosen = signal<string | null>(localStorage.getItem(NAME));
export const isDark = computed(() => (chosen.value ? chosen.value === "dark" : systemIsDark.value));

export function toggleTheme(): void {
  chosen.value = isDark.value ? "light" : "dark";
  localStorage.setItem(NAME, chosen.value);
}

effect(() => {
  document.documentElement.dataset.theme = isDark.value ? "dark" : "light";
});
