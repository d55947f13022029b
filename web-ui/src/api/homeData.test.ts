import { describe, expect, it } from 'vitest'
import { ApiError } from './errors'
import { toChapters, toDetail, toLibraries, toPage } from './homeData'

const SERVER = '0b0e5a55-0000-4000-8000-000000000001'
const ITEM = 'aaaaaaaa-0000-4000-8000-000000000001'
const BASE = `/api/v1/servers/${SERVER}/proxy`

/** As a Phlix server lists it. */
const ROW = {
  id: ITEM,
  name: 'The Example',
  sort_title: 'Example',
  type: 'movie',
  path: '/srv/films/e.mkv',
  poster_url: `/api/v1/artwork/${ITEM}?size=w342&exp=1790000000&sig=zz`,
  backdrop_url: null,
  year: 2001,
  duration: 5400,
  overview: 'x',
  season_number: null,
  episode_number: null,
  parent_id: null,
}

function unreadable(read: () => unknown) {
  expect(read).toThrowError(ApiError)
  expect(read).toThrowError(expect.objectContaining({ fault: 'unreadable' }))
}

describe('libraries', () => {
  it('keeps what a page shows and nothing of the disk', () => {
    const body = { libraries: [{ id: '1111-a', name: 'Films', type: 'movie', paths: ['/srv/films'], options: {}, item_count: 2 }] }
    expect(toLibraries(body)).toEqual([{ id: '1111-a', name: 'Films', type: 'movie', count: 2 }])
  })

  it('leaves out what has no usable id, and bears the rest', () => {
    const body = { libraries: [null, 7, [], {}, { id: '../..' }, { id: 'a/b' }, { id: 'ok', name: 5, type: {}, item_count: '9' }] }
    expect(toLibraries(body)).toEqual([{ id: 'ok', name: 'Library', type: '', count: undefined }])
  })

  it.each([undefined, null, 'x', [], {}, { libraries: {} }])('does not take %j for libraries', (body) => unreadable(() => toLibraries(body)))
})

describe('a page of items', () => {
  it('maps the poster to the proxy, with the signature as it came', () => {
    const page = toPage(SERVER, { items: [ROW], total: 213, limit: 50, offset: 0 })
    expect(page).toEqual({
      items: [
        { id: ITEM, name: 'The Example', type: 'movie', year: 2001, seconds: 5400, season: undefined, episode: undefined, artist: undefined, poster: BASE + ROW.poster_url },
      ],
      total: 213,
    })
  })

  it('drops a poster from anywhere else', () => {
    const { items } = toPage(SERVER, { items: [{ ...ROW, poster_url: 'https://tracker.example/p.png' }] })
    expect(items[0]?.poster).toBeUndefined()
  })

  it('takes a few hundred of a million rows', () => {
    const items = Array.from({ length: 2_000 }, (_, index) => ({ ...ROW, id: `i${index}` }))
    expect(toPage(SERVER, { items }).items).toHaveLength(500)
  })

  it('cuts names and takes out what reorders or breaks a line', () => {
    const { items } = toPage(SERVER, { items: [{ ...ROW, name: `a\u202eb\u0000c\n${'x'.repeat(9_000)}` }] })
    expect(items[0]?.name).toMatch(/^a b c x+…$/)
    expect(items[0]?.name.length).toBe(301)
  })

  it('keeps markup as the text that it is', () => {
    const name = '<img src=x onerror=alert(1)>'
    expect(toPage(SERVER, { items: [{ ...ROW, name }] }).items[0]?.name).toBe(name)
  })
})

describe('an item', () => {
  const signed = `/media/${ITEM}/stream?exp=1790000000&sig=zz`
  const detail = (more: object) => toDetail(SERVER, ITEM, { item: { ...ROW, ...more } })

  it('plays at the address that the server signed', () => {
    expect(detail({ stream_url: signed }).stream).toBe(BASE + signed)
  })

  it.each(['/media/another/stream?exp=1', `/media/${ITEM}/streams`, '/api/v1/libraries', `https://evil.example/media/${ITEM}/stream`, null, undefined])(
    'plays at the plain address when the server says %j',
    (stream_url) => expect(detail({ stream_url }).stream).toBe(`${BASE}/media/${ITEM}/stream`),
  )

  it('tells the codecs', () => {
    const streams = [
      { stream_type: 'video', codec: 'hevc', width: 3840, height: 2160 },
      { stream_type: 'audio', codec: 'dts', width: null },
      { stream_type: 'audio', codec: 'dts' },
      { stream_type: 'subtitle', codec: 'srt' },
      null,
    ]
    expect(detail({ streams }).codecs).toBe('hevc 3840 × 2160, dts')
    expect(detail({ streams: 'x' }).codecs).toBe('')
  })

  it('is not another item, and not a list', () => {
    unreadable(() => toDetail(SERVER, ITEM, { item: { ...ROW, id: 'another' } }))
    unreadable(() => toDetail(SERVER, ITEM, { items: [ROW] }))
  })
})

describe('chapters', () => {
  it('come in the order of time', () => {
    const body = { chapters: [{ start_seconds: 60, end_seconds: 90, title: 'Two' }, { start_seconds: 0, title: null }, { start_seconds: -1 }, {}] }
    expect(toChapters(body)).toEqual([
      { start: 0, title: 'Chapter 2' },
      { start: 60, title: 'Two' },
    ])
  })
})
