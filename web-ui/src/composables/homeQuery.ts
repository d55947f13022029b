/** Reading from a home server: what went wrong in words, and looking again while it may pass. */
import { computed, onScopeDispose, watch, type ComputedRef } from 'vue'
import { homeProblem, LOOK_AGAIN_MS, type HomeProblem } from './homeProblem'
import { useQuery, type Query } from './query'

export interface HomeQuery<T> extends Query<T> {
  problem: ComputedRef<HomeProblem | undefined>
}

export function useHomeQuery<T>(read: (signal: AbortSignal) => Promise<T>): HomeQuery<T> {
  const query = useQuery(read)
  const problem = computed(() => (query.view.value.stage === 'failed' ? homeProblem(query.view.value.error) : undefined))
  let timer: ReturnType<typeof setTimeout> | undefined
  // Each failed look is a new error, so that this starts anew.
  watch(problem, (now) => {
    clearTimeout(timer)
    if (now?.passes) timer = setTimeout(look, LOOK_AGAIN_MS)
  })
  function look() {
    if (document.hidden) timer = setTimeout(look, LOOK_AGAIN_MS)
    else void query.refresh()
  }
  onScopeDispose(() => clearTimeout(timer))
  return { ...query, problem }
}
