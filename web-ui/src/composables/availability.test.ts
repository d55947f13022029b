import { nextTick, ref } from 'vue'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { nameAvailability } from '../api/hub'
import type { Availability } from '../api/types'
import { live, mockFetch, refusal, reply, settle } from '../testing'
import { judge, PAUSE_MS, useAvailability } from './availability'

const PATH = '/api/v1/me/names/availability'

function answer(label: string, reason: string | null, message = 'It is free.'): Availability {
  return { label, host: `${label}.hub.localhost`, available: reason === null, reason, message }
}

describe('useAvailability', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  function typing() {
    const label = ref('')
    const { result, app } = live(() => useAvailability(label, nameAvailability))
    async function type(text: string) {
      label.value = text
      await nextTick()
    }
    async function pause(ms = PAUSE_MS) {
      vi.advanceTimersByTime(ms)
      await settle()
    }
    return { verdict: result, type, pause, app }
  }

  it('asks once for a word, after a pause, and says whole names', async () => {
    const seen = mockFetch(() => reply('get', PATH, answer('ann-tv', null)))
    const { verdict, type, pause } = typing()
    expect(verdict.value.stage).toBe('empty')
    for (const text of ['a', 'an', 'ann-tv ']) {
      await type(text)
      await pause(PAUSE_MS - 1)
      expect(verdict.value.stage).toBe('checking')
    }
    await pause(1)
    expect(verdict.value).toEqual({ stage: 'free', text: 'ann-tv.hub.localhost: it is free.' })
    expect(seen.map(({ url }) => url)).toEqual([`${PATH}?label=ann-tv`])
  })

  it.each(['malformed', 'reserved', 'confusing', 'taken', 'quarantined'])('passes on why a %s name is refused', (reason) => {
    expect(judge(answer('x', reason, 'Because.'))).toEqual({ stage: 'refused', text: 'Because.' })
  })

  it('drops an answer that was overtaken', async () => {
    let late: (response: Response) => void = () => {}
    mockFetch(
      () => new Promise<Response>((resolve) => (late = resolve)),
      () => reply('get', PATH, answer('second', 'taken', 'Somebody else has this name.')),
    )
    const { verdict, type, pause } = typing()
    await type('first')
    await pause()
    await type('second')
    late(reply('get', PATH, answer('first', null)))
    await pause()
    expect(verdict.value).toEqual({ stage: 'refused', text: 'Somebody else has this name.' })
    await type('  ')
    expect(verdict.value.stage).toBe('empty')
  })

  it('leaves it to adding the name when the hub does not say', async () => {
    mockFetch(
      () => refusal(429, 'rate_limited', 'Too Many Requests'),
      () => refusal(503, 'provider_unavailable', 'away'),
    )
    const { verdict, type, pause } = typing()
    await type('one')
    await pause()
    expect(verdict.value).toEqual({ stage: 'unknown', text: 'That was asked very often. You can still try to add it.' })
    await type('two')
    await pause()
    expect(verdict.value).toEqual({ stage: 'unknown', text: 'It could not be checked. You can still try to add it.' })
  })

  it('asks nothing more when the page is left', async () => {
    const seen = mockFetch()
    const { type, pause, app } = typing()
    await type('ann')
    app.unmount()
    await pause()
    expect(seen).toEqual([])
  })
})
