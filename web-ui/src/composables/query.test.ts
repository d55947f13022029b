import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { ApiError } from '../api/errors'
import { live, settle } from '../testing'
import { useQuery } from './query'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const gone = ApiError.refused(new Response(null, { status: 404 }), undefined)

describe('useQuery', () => {
  it('goes from loading to ready', async () => {
    const { result } = live(() => useQuery(() => Promise.resolve(1)))
    expect(result.view.value).toEqual({ stage: 'loading' })
    await settle()
    expect(result.view.value).toEqual({ stage: 'ready', data: 1 })
  })

  it('fails, and loads again on retry', async () => {
    const read = vi.fn().mockRejectedValueOnce(ApiError.unreachable()).mockResolvedValueOnce('here')
    const { result } = live(() => useQuery<string>(read))
    await settle()
    expect(result.view.value).toMatchObject({ stage: 'failed', error: { fault: 'unreachable' } })
    const again = result.retry()
    expect(result.view.value.stage).toBe('loading')
    await again
    expect(result.view.value).toEqual({ stage: 'ready', data: 'here' })
  })

  it('keeps what it shows when a refresh fails, and says so', async () => {
    const read = vi.fn().mockResolvedValueOnce('old').mockRejectedValueOnce(ApiError.unreachable())
    const { result } = live(() => useQuery<string>(read))
    await settle()
    await result.refresh()
    expect(result.view.value).toMatchObject({ stage: 'ready', data: 'old', stale: { fault: 'unreachable' } })
  })

  it('does not keep what is no longer there', async () => {
    const read = vi.fn().mockResolvedValueOnce('old').mockRejectedValueOnce(gone)
    const { result } = live(() => useQuery<string>(read))
    await settle()
    await result.refresh()
    expect(result.view.value).toMatchObject({ stage: 'failed', error: { status: 404 } })
  })

  it('drops a reply that a newer read overtook', async () => {
    const answers: ((value: string) => void)[] = []
    const { result } = live(() => useQuery(() => new Promise<string>((resolve) => answers.push(resolve))))
    void result.refresh()
    answers[1]?.('new')
    await settle()
    answers[0]?.('old')
    await settle()
    expect(result.view.value).toEqual({ stage: 'ready', data: 'new' })
  })

  it('reads again while someone looks, and stops with the page', async () => {
    const signals: AbortSignal[] = []
    const read = vi.fn((signal: AbortSignal) => {
      signals.push(signal)
      return Promise.resolve(signals.length)
    })
    const hidden = vi.spyOn(document, 'hidden', 'get').mockReturnValue(false)
    const { result, app } = live(() => useQuery(read, 1_000))
    await settle()
    vi.advanceTimersByTime(1_000)
    await settle()
    expect(result.view.value).toEqual({ stage: 'ready', data: 2 })

    hidden.mockReturnValue(true)
    vi.advanceTimersByTime(5_000)
    expect(read).toHaveBeenCalledTimes(2)

    hidden.mockReturnValue(false)
    document.dispatchEvent(new Event('visibilitychange'))
    expect(read).toHaveBeenCalledTimes(3)

    app.unmount()
    expect(signals[2]?.aborted).toBe(true)
    vi.advanceTimersByTime(5_000)
    document.dispatchEvent(new Event('visibilitychange'))
    expect(read).toHaveBeenCalledTimes(3)
  })
})
