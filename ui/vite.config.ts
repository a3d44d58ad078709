// Build of the page: one script, one style sheet, nothing inlined, so that the
// server's `Content-Security-Policy: default-src 'self'` holds without exceptions.
import { defineConfig } from "vite";

const server = "http://127.0.0.1:4040";

export default defineConfig({
  base: "./",
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    cssCodeSplit: false,
    chunkSizeWarningLimit: 300,
  },
  // `npm run dev` talks to a running server; the Host and Origin it sees must be its own.
  server: { proxy: { "/api": { target: server, changeOrigin: true, headers: { origin: server } } } },
});
