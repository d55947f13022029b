/** Doing something at the hub: busy while it runs, and the sentence to show when it failed. */
import { readonly, ref, type Ref } from 'vue'

export interface Action<A extends unknown[]> {
  busy: Readonly<Ref<boolean>>
  /** Empty when there is nothing to say. */
  problem: Readonly<Ref<string>>
  /** Runs once; a second start while the first runs does nothing. True when it went well. */
  run(...args: A): Promise<boolean>
  clear(): void
}

export function useAction<A extends unknown[]>(
  act: (...args: A) => Promise<void>,
  say: (error: unknown) => string = sentence,
): Action<A> {
  const busy = ref(false)
  const problem = ref('')

  async function run(...args: A): Promise<boolean> {
    if (busy.value) return false
    busy.value = true
    problem.value = ''
    try {
      await act(...args)
      return true
    } catch (error) {
      problem.value = say(error)
      return false
    } finally {
      busy.value = false
    }
  }

  return { busy: readonly(busy), problem: readonly(problem), run, clear: () => void (problem.value = '') }
}

/** An error's own words: those of api/ are written for people. */
export function sentence(error: unknown): string {
  return error instanceof Error ? error.message : 'Something went wrong. Try again.'
}
