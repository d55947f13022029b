/** Whether a name is free, asked while somebody types it. */
import { onScopeDispose, readonly, shallowRef, watch, type Ref, type ShallowRef } from 'vue'
import { ApiError } from '../api/errors'
import type { Availability } from '../api/types'

export type Verdict =
  /** Nothing is typed. */
  | { stage: 'empty' }
  /** Waiting for a pause, or for the hub. */
  | { stage: 'checking' }
  | { stage: 'free'; text: string }
  | { stage: 'refused'; text: string }
  /** The hub did not say; adding the name will. */
  | { stage: 'unknown'; text: string }

/** A pause this long ends a word: shorter and every letter is a question. */
export const PAUSE_MS = 350

/** Follows `label`. An answer that was overtaken by more typing is dropped. */
export function useAvailability(
  label: Ref<string>,
  ask: (label: string, signal: AbortSignal) => Promise<Availability>,
): Readonly<ShallowRef<Verdict>> {
  const verdict = shallowRef<Verdict>({ stage: 'empty' })
  let timer: ReturnType<typeof setTimeout> | undefined
  let running: AbortController | undefined

  function stop() {
    clearTimeout(timer)
    running?.abort()
    running = undefined
  }

  async function check(text: string) {
    const mine = new AbortController()
    running = mine
    let next: Verdict
    try {
      next = judge(await ask(text, mine.signal))
    } catch (error) {
      next = { stage: 'unknown', text: unasked(error) }
    }
    if (running === mine) verdict.value = next
  }

  watch(label, (typed) => {
    stop()
    const text = typed.trim()
    if (text === '') {
      verdict.value = { stage: 'empty' }
      return
    }
    verdict.value = { stage: 'checking' }
    timer = setTimeout(() => void check(text), PAUSE_MS)
  })
  onScopeDispose(stop)

  return readonly(verdict) as Readonly<ShallowRef<Verdict>>
}

/** The hub's answer in the words of the form. */
export function judge(answer: Availability): Verdict {
  if (!answer.available) return { stage: 'refused', text: answer.message }
  return { stage: 'free', text: answer.host ? `${answer.host}: ${lower(answer.message)}` : answer.message }
}

function lower(sentence: string): string {
  return sentence.charAt(0).toLowerCase() + sentence.slice(1)
}

function unasked(error: unknown): string {
  const isTooOften = error instanceof ApiError && error.status === 429
  return isTooOften ? 'That was asked very often. You can still try to add it.' : 'It could not be checked. You can still try to add it.'
}
