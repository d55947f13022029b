import { describe, expect, it } from 'vitest'
import { isWhole, tidyCode } from './claimCode'
import { ago, duration, toDate } from './time'
import { webUrl } from './url'

describe('tidyCode', () => {
  it.each([
    ['abcd-efgh', 'ABCD-EFGH'],
    ['  abcd efgh ', 'ABCD-EFGH'],
    ['ABCDEFGH', 'ABCD-EFGH'],
    ['abc', 'ABC'],
    ['abcde', 'ABCD-E'],
    ['ABCD-EFGH-IJKL', 'ABCD-EFGH'],
    ['<b>abcd</b>', 'BABC-DB'],
  ])('%j is %j', (typed, code) => expect(tidyCode(typed)).toBe(code))

  it('knows a whole code', () => {
    expect(isWhole('ABCD-EF23')).toBe(true)
    expect(isWhole('ABCD-EF2')).toBe(false)
    expect(isWhole('')).toBe(false)
  })
})

describe('time', () => {
  const now = new Date('2026-11-24T12:00:00Z')

  it.each([
    ['2026-11-24T11:59:40Z', 'just now'],
    ['2026-11-24T11:59:10Z', '1 minute ago'],
    ['2026-11-24T11:57:00Z', '3 minutes ago'],
    ['2026-11-24T10:00:00Z', '2 hours ago'],
    ['2026-11-23T12:00:00Z', 'yesterday'],
    ['2026-11-24T12:00:30Z', 'just now'],
  ])('%s is %s', (date, words) => expect(ago(new Date(date), now)).toBe(words))

  it('reads both forms the API has', () => {
    expect(toDate(1_795_521_600)?.toISOString()).toBe('2026-11-24T12:00:00.000Z')
    expect(toDate('2026-11-24 12:00:00')?.toISOString()).toBe('2026-11-24T12:00:00.000Z')
    expect(toDate(null)).toBeUndefined()
    expect(toDate('soon')).toBeUndefined()
  })

  it.each([
    [12, '12 s'],
    [720, '12 min'],
    [7_260, '2 h 1 min'],
    [270_000, '3 d 3 h'],
    [-5, '0 s'],
  ])('%d s is %s', (seconds, words) => expect(duration(seconds)).toBe(words))
})

describe('webUrl', () => {
  it.each(['https://ab.hub.localhost:8443/', 'http://192.168.1.5:8096/'])('links %s', (url) => expect(webUrl(url)).toBe(url))

  it.each(['javascript:alert(1)', 'data:text/html,x', ' https://x/', 'https://user:pw@x/', 'https://', '//x/', '', null, undefined])(
    'leaves %j as text',
    (url) => expect(webUrl(url)).toBeUndefined(),
  )
})
