import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vitest/config'

/** Where `npm run dev` finds a hub; its session cookie wants that hub's own Origin. */
const hub = process.env.PHLIX_HUB ?? 'http://localhost:8800'

const toHub = { target: hub, changeOrigin: true, headers: { Origin: hub } }

export default defineConfig({
  base: '/app/',
  plugins: [vue()],
  define: {
    __VUE_OPTIONS_API__: 'false',
    __VUE_PROD_DEVTOOLS__: 'false',
    __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: 'false',
  },
  build: {
    outDir: 'dist',
    // The console's CSP allows assets from /app/assets/ alone: no data: URLs.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: {
      output: {
        // `[...rest].vue` must not put dots into a path that servers check for `..`.
        chunkFileNames: (chunk) => `assets/${chunk.name.replace(/\W+/g, '') || 'chunk'}-[hash].js`,
      },
    },
  },
  server: {
    proxy: { '/api': toHub, '/health': toHub, '/authorize-name': toHub },
  },
  test: {
    environment: 'happy-dom',
    include: ['src/**/*.test.ts'],
    restoreMocks: true,
  },
})
