/** jsdom lacks these. */

import { beforeEach, vi } from "vitest";

window.matchMedia ??= ((query: string) => ({ matches: false, media: query, addEventListener: () => undefined })) as unknown as typeof matchMedia;

beforeEach(() => {
  sessionStorage.clear();
  localStorage.clear();
  vi.restoreAllMocks();
});
