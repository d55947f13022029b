import { describe, expect, it } from 'vitest'
import { ApiError } from '../api/errors'
import { clock, keyOf, stopOf } from './playback'

describe('stopOf', () => {
  const offline = ApiError.refused(new Response(null, { status: 503 }), { code: 'server.offline' })

  it('believes the stream’s own answer first', () => {
    for (const code of [2, 3, 4, undefined]) {
      expect(stopOf(code, offline, 'h264')).toMatchObject({ heading: 'This server is offline', mayRetry: true })
    }
  })

  it('tells a broken connection from a file that this browser does not know', () => {
    expect(stopOf(2, undefined, 'h264')).toMatchObject({ heading: 'The connection broke', mayRetry: true })
    const unknown = stopOf(4, undefined, 'hevc 3840 × 2160, dts')
    expect(unknown).toMatchObject({ heading: 'This browser cannot play this file', mayRetry: false })
    expect(unknown.text).toContain('Its format: hevc 3840 × 2160, dts.')
    expect(stopOf(4, undefined, '').text).not.toContain('Its format')
    expect(stopOf(3, undefined, 'h264')).toMatchObject({ heading: 'This part cannot be played', mayRetry: true })
  })
})

describe('clock', () => {
  it.each([
    [0, '0:00'],
    [65.9, '1:05'],
    [3_723, '1:02:03'],
    [-3, '0:00'],
  ])('%d s is %s', (seconds, words) => expect(clock(seconds)).toBe(words))
})

describe('keyOf', () => {
  const key = (name: string, more: object = {}) => keyOf({ key: name, ctrlKey: false, altKey: false, metaKey: false, ...more })

  it('knows the player’s keys and leaves the rest to the browser', () => {
    expect(key(' ')).toEqual({ act: 'toggle' })
    expect(key('ArrowLeft')).toEqual({ act: 'skip', seconds: -10 })
    expect(key('l')).toEqual({ act: 'skip', seconds: 10 })
    expect(key('f')).toEqual({ act: 'fullscreen' })
    expect(key('Tab')).toBeUndefined()
    expect(key('f', { ctrlKey: true })).toBeUndefined()
    expect(key('ArrowLeft', { altKey: true })).toBeUndefined()
  })
})
