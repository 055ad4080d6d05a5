import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { defineConfig } from "vitest/config";

const server = process.env.SCMULAN_SERVER ?? "http://127.0.0.1:8000";

const SOURCES = ["index.html", "package.json", "package-lock.json", "vite.config.ts"];

/** The sha256 over names and bytes of these and of all in `src`, by which a test sees that what was built is of these (`tests/test_page_built.py`). */
function hashOfSources(): string {
  const hash = createHash("sha256");
  const inside = readdirSync("src", { recursive: true, withFileTypes: true }).filter((each) => each.isFile());
  const names = [...SOURCES, ...inside.map((each) => join(each.parentPath, each.name))];
  for (const name of names.sort()) hash.update(name).update(readFileSync(name));
  return hash.digest("hex");
}

export default defineConfig({
  esbuild: { jsx: "automatic", jsxImportSource: "preact", legalComments: "none" },
  plugins: [
    {
      name: "sources",
      generateBundle() {
        this.emitFile({ type: "asset", fileName: "sources.sha256", source: `${hashOfSources()}\n` });
      },
    },
  ],
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 900,
    rollupOptions: {
      output: {
        // names with hashes, which the server lets browsers keep; the same sources give the same names
        entryFileNames: "assets/[name]-[hash].js",
        chunkFileNames: "assets/[name]-[hash].js",
        assetFileNames: "assets/[name]-[hash][extname]",
      },
    },
  },
  server: { proxy: { "/v1": { target: server, changeOrigin: true } } },
  test: { environment: "jsdom", setupFiles: ["tests/setup.ts"], include: ["tests/**/*.test.ts", "tests/**/*.test.tsx"] },
});
