import { svelte } from "@sveltejs/vite-plugin-svelte";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

// Vite wraps each import() in a function that first loads the styles and scripts that the imported
// file needs. Ours needs none, and the function is as large as a component.
const plainImports: Plugin = {
  name: "plain-imports",
  enforce: "pre",
  load: (id) =>
    id === "\0vite/preload-helper.js" ? "export const __vitePreload = (load) => load();" : null,
};

const compress = {
  passes: 4,
  // Reading a property is how an effect says what it depends on: never drop one.
  pure_getters: false,
  unsafe_arrows: true,
  // These make the script smaller, but not once it is compressed.
  comparisons: false,
  lhs_constants: false,
  negate_iife: false,
  sequences: false,
};

export default defineConfig({
  // Relative addresses: the service may be mounted below a path of a proxy.
  base: "./",
  plugins: [svelte(), plainImports],
  server: {
    proxy: Object.fromEntries(
      [
        "/v1",
        "/get-value",
        "/set-value",
        "/delete-value",
        "/increment-value",
        "/touch-value",
        "/rename-value",
        "/health-check",
        "/docs",
      ].map((path) => [path, "http://127.0.0.1:8000"]),
    ),
  },
  build: {
    outDir: process.env.CONSOLE_OUTPUT ?? "../static",
    emptyOutDir: true,
    // Browsers with light-dark(), which must reach them as it is written.
    target: ["chrome123", "firefox120", "safari17.5"],
    minify: "terser",
    terserOptions: {
      ecma: 2020,
      module: true,
      compress,
      format: { comments: false },
    },
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    reportCompressedSize: false,
  },
  // Tests mount components, which Svelte's code for servers cannot do.
  ...(process.env.VITEST ? { resolve: { conditions: ["browser"] } } : {}),
  test: {
    include: ["tests/**/*.test.ts"],
    environment: "node",
  },
});
