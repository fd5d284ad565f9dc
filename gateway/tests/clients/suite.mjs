// A list of independent checks of one server: all of them run, whatever fails, and the last line counts.

import { WAIT_MS_MAX, within } from './wire.mjs';

/** Longest that one check may take, in milliseconds. */
const CHECK_MS_MAX = 4 * WAIT_MS_MAX;

/** How many checks are under way at once: most of them wait. */
const CHECKS_AT_ONCE = 8;

/** Runs the groups `{title: [[name, body], …]}`; exit code 0 when nothing failed. `ONLY` names a part of what is to run. */
export async function suite(name, groups) {
  const only = process.env.ONLY ?? '';
  const counts = [];
  let failed = 0;
  for (const [title, checks] of Object.entries(groups)) {
    let passed = 0;
    const chosen = checks.filter(([check]) => check.includes(only));
    const left = [...chosen];
    const work = async () => {
      for (let next = left.shift(); next; next = left.shift()) {
        const [check, body] = next;
        try {
          await within(check, body(), CHECK_MS_MAX);
          passed += 1;
          console.log(`ok      ${check}`);
        } catch (error) {
          failed += 1;
          console.log(`FAILED  ${check}\n        ${String(error.stack ?? error).replaceAll('\n', '\n        ')}`);
        }
      }
    };
    await Promise.all(Array.from({ length: CHECKS_AT_ONCE }, work));
    counts.push(`${title} ${passed}/${chosen.length}`);
  }
  console.log(`${name}: ${counts.join(', ')}`);
  process.exit(failed ? 1 : 0);
}
