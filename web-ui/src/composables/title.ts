/** The document's title while a page is shown. */
import { watchEffect } from 'vue'

export function useTitle(title: () => string): void {
  watchEffect(() => {
    document.title = `${title()} · Phlix Hub`
  })
}
