import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

export default defineConfig({
  // Relative addresses: the service may be mounted below a path of a proxy.
  base: "./",
  plugins: [svelte()],
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
      // Reading a property is how an effect says what it depends on: never drop one.
      compress: { passes: 4, pure_getters: false },
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
