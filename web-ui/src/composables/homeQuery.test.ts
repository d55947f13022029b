import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { ApiError } from '../api/errors'
import { live, settle } from '../testing'
import { LOOK_AGAIN_MS } from './homeProblem'
import { useHomeQuery } from './homeQuery'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const offline = () => ApiError.refused(new Response(null, { status: 503 }), { code: 'server.offline' })
const denied = ApiError.refused(new Response(null, { status: 403 }), { code: 'proxy.scope_denied' })

it('looks again until a server is back, and then no more', async () => {
  const read = vi.fn<() => Promise<string>>().mockRejectedValueOnce(offline()).mockRejectedValueOnce(offline()).mockResolvedValue('here')
  const { result } = live(() => useHomeQuery(read))
  await settle()
  expect(result.problem.value?.heading).toBe('This server is offline')
  await vi.advanceTimersByTimeAsync(LOOK_AGAIN_MS)
  expect(read).toHaveBeenCalledTimes(2)
  expect(result.problem.value).toBeDefined()
  await vi.advanceTimersByTimeAsync(LOOK_AGAIN_MS)
  expect(result.view.value).toEqual({ stage: 'ready', data: 'here' })
  expect(result.problem.value).toBeUndefined()
  await vi.advanceTimersByTimeAsync(10 * LOOK_AGAIN_MS)
  expect(read).toHaveBeenCalledTimes(3)
})

it('asks no more for what does not pass, nor after the page is left', async () => {
  const lasting = vi.fn(() => Promise.reject(denied))
  live(() => useHomeQuery(lasting))
  const passing = vi.fn(() => Promise.reject(offline()))
  const { app } = live(() => useHomeQuery(passing))
  await settle()
  app.unmount()
  await vi.advanceTimersByTimeAsync(10 * LOOK_AGAIN_MS)
  expect([lasting.mock.calls.length, passing.mock.calls.length]).toEqual([1, 1])
})
