import { expect, it } from 'vitest'
import { noticeHeading, suspectsACopy } from './serverNotice'

it('has a heading for every kind, known or not', () => {
  expect(noticeHeading('tunnel.plain')).toBe('Connected without encryption')
  expect(noticeHeading('tunnel.new_address')).toBe('Connected from a new address')
  expect(noticeHeading('credentials.old')).toBe('Old credentials were used')
  expect(noticeHeading('toString')).toBe('Something to look at')
})

it('offers to end credentials where a copy is suspected, not for a plain line', () => {
  expect(['tunnel.plain', 'tunnel.new_address', 'credentials.old'].map(suspectsACopy)).toEqual([false, true, true])
})
