/** Reading from the hub: one view with its stages, refreshed while someone looks. */
import { onScopeDispose, readonly, shallowRef, type ShallowRef } from 'vue'
import { ApiError } from '../api/errors'

export type View<T> =
  | { stage: 'loading' }
  | { stage: 'failed'; error: ApiError }
  /** `stale` says why the last refresh did not come; the data is from before it. */
  | { stage: 'ready'; data: T; stale?: ApiError }

export interface Query<T> {
  view: Readonly<ShallowRef<View<T>>>
  /** Reads again, keeping what is shown. */
  refresh(): Promise<void>
  /** Reads again from the start, as after an error. */
  retry(): Promise<void>
}

/**
 * Reads at once, and again every `everyMs` while the page is visible. A reply
 * that was overtaken by a newer read is dropped; leaving the page aborts.
 */
export function useQuery<T>(read: (signal: AbortSignal) => Promise<T>, everyMs?: number): Query<T> {
  const view = shallowRef<View<T>>({ stage: 'loading' })
  let running: AbortController | undefined

  async function refresh(): Promise<void> {
    running?.abort()
    const mine = new AbortController()
    running = mine
    try {
      const data = await read(mine.signal)
      if (running === mine) view.value = { stage: 'ready', data }
    } catch (error) {
      if (running !== mine) return
      if (!(error instanceof ApiError)) throw error
      view.value =
        view.value.stage === 'ready' && error.status !== 404
          ? { stage: 'ready', data: view.value.data, stale: error }
          : { stage: 'failed', error }
    }
  }

  function retry(): Promise<void> {
    view.value = { stage: 'loading' }
    return refresh()
  }

  if (everyMs !== undefined) {
    const timer = setInterval(() => {
      if (!document.hidden) void refresh()
    }, everyMs)
    const onShow = () => {
      if (!document.hidden) void refresh()
    }
    document.addEventListener('visibilitychange', onShow)
    onScopeDispose(() => {
      clearInterval(timer)
      document.removeEventListener('visibilitychange', onShow)
    })
  }
  onScopeDispose(() => {
    running?.abort()
    running = undefined
  })

  void refresh()
  return { view: readonly(view) as Readonly<ShallowRef<View<T>>>, refresh, retry }
}

