/**
 * `src/api/schema.d.ts` from `control-plane/openapi.json`; with `--check`, fails when the two differ.
 */
import { readFile, writeFile } from 'node:fs/promises'
import openapiTS, { astToString } from 'openapi-typescript'

const contract = new URL('../../control-plane/openapi.json', import.meta.url)
const target = new URL('../src/api/schema.d.ts', import.meta.url)

const header = '// Generated from control-plane/openapi.json by `npm run gen`. Do not edit.\n\n'
/** A field that has a default may be left out of a request. */
const options = { alphabetize: true, defaultNonNullable: false }
const wanted = header + astToString(await openapiTS(contract, options))

if (process.argv.includes('--check')) {
  const found = await readFile(target, 'utf8').catch(() => '')
  if (found !== wanted) {
    console.error('src/api/schema.d.ts is not what control-plane/openapi.json says: run `npm run gen` in web-ui/')
    process.exitCode = 1
  }
} else {
  await writeFile(target, wanted)
}
