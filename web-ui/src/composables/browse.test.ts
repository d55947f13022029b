import { describe, expect, it } from 'vitest'
import type { MediaItem } from '../api/homeData'
import { about, hasNext, isStart, libraryKind, PAGE_SIZE, placeOf, span, toPlace, wayTo } from './browse'

const NONE = { library: undefined, parent: undefined, search: undefined, page: 1 }

function item(more: Partial<MediaItem> = {}): MediaItem {
  return { id: 'i1', name: 'X', type: 'movie', year: undefined, seconds: undefined, season: undefined, episode: undefined, artist: undefined, poster: undefined, ...more }
}

describe('a place', () => {
  it.each([
    [{}, NONE],
    [{ library: 'L', page: '3' }, { ...NONE, library: 'L', page: 3 }],
    [{ q: '  two words ' }, { ...NONE, search: 'two words' }],
    [{ q: '   ', library: '../x', parent: ['a', 'b'] }, NONE],
    [{ page: '-1' }, NONE],
    [{ page: '1e9' }, NONE],
    [{ page: '1.5' }, NONE],
  ])('%j is read with care', (query, place) => expect(placeOf(query)).toEqual(place))

  it('comes back from the URL that it makes', () => {
    const place = { library: 'L', parent: 'S', search: 'a b', page: 2 }
    const to = toPlace('s/1', place)
    expect(to).toEqual({ path: '/servers/s%2F1/browse', query: { library: 'L', parent: 'S', q: 'a b', page: '2' } })
    expect(placeOf((to as { query: Record<string, string> }).query)).toEqual(place)
  })

  it('knows the start', () => {
    expect(isStart(NONE)).toBe(true)
    expect(isStart({ ...NONE, search: 'x' })).toBe(false)
  })
})

describe('paging', () => {
  const page = (shown: number, total?: number) => ({ items: Array.from({ length: shown }, () => item()), total })

  it('says what is shown of how many', () => {
    expect(span(1, page(48, 213))).toBe('1–48 of 213')
    expect(span(5, page(21, 213))).toBe('193–213 of 213')
    expect(span(2, page(3))).toBe('49–51')
    expect(span(9, page(0, 3))).toBe('Nothing')
  })

  it('ends where the server’s count ends, or where a page is not full', () => {
    expect(hasNext(1, page(PAGE_SIZE, PAGE_SIZE))).toBe(false)
    expect(hasNext(1, page(PAGE_SIZE, PAGE_SIZE + 1))).toBe(true)
    expect(hasNext(1, page(PAGE_SIZE))).toBe(true)
    expect(hasNext(1, page(PAGE_SIZE - 1))).toBe(false)
  })
})

describe('an item', () => {
  it('leads to its parts, the player or nowhere', () => {
    expect(wayTo('s', item({ type: 'series' }), 'L')).toEqual({ path: '/servers/s/browse', query: { library: 'L', parent: 'i1' } })
    expect(wayTo('s', item(), 'L')).toBe('/servers/s/play/i1')
    expect(wayTo('s', item({ type: 'track' }), undefined)).toBe('/servers/s/play/i1')
    expect(wayTo('s', item({ type: 'photo' }), undefined)).toBeUndefined()
  })

  it('is told from its like', () => {
    expect(about(item({ type: 'episode', season: 1, episode: 2, year: 2001 }))).toBe('Season 1, episode 2')
    expect(about(item({ type: 'episode', episode: 2 }))).toBe('Episode 2')
    expect(about(item({ year: 2001 }))).toBe('2001')
    expect(about(item({ artist: 'An Artist', year: 1999 }))).toBe('An Artist, 1999')
    expect(about(item())).toBe('')
  })

  it('belongs to a kind, known or not', () => {
    expect(libraryKind('movie')).toBe('Films')
    expect(libraryKind('constructor')).toBe('')
  })
})
