import { describe, expect, it, vi } from 'vitest'
import { useAction } from './action'

describe('useAction', () => {
  it('runs once at a time', async () => {
    let finish = () => {}
    const act = vi.fn(() => new Promise<void>((resolve) => (finish = resolve)))
    const action = useAction(act)
    const first = action.run()
    expect(action.busy.value).toBe(true)
    expect(await action.run()).toBe(false)
    finish()
    expect(await first).toBe(true)
    expect(act).toHaveBeenCalledOnce()
    expect(action.busy.value).toBe(false)
  })

  it('says what went wrong, and forgets it with the next try', async () => {
    const act = vi.fn().mockRejectedValueOnce(new Error('the disk is full')).mockResolvedValueOnce(undefined)
    const action = useAction(act)
    expect(await action.run()).toBe(false)
    expect(action.problem.value).toBe('the disk is full')
    expect(await action.run()).toBe(true)
    expect(action.problem.value).toBe('')
  })
})
