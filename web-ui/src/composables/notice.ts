/** One sentence carried to the page that follows: "… is yours now". */
import { readonly, ref } from 'vue'

const pending = ref('')

/** What is to be said now; empty when nothing is. */
export const notice = readonly(pending)

export function announce(sentence: string): void {
  pending.value = sentence
}

export function dismissNotice(): void {
  pending.value = ''
}
