// The reports of `make bench-peers` as one table: the median of all rounds, and how many times Starling's it is.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const directory = process.argv[2];
const figures = {
  window4: ['µs/delivery, 4 under way', (report) => report.server[0].cpu_us_per_delivery],
  window32: ['µs/delivery, 32 under way', (report) => report.server[0].cpu_us_per_delivery],
  paced: ['µs/delivery, 20 messages/s', (report) => report.server[0].cpu_us_per_delivery],
  idle: ['KiB/idle connection', (report) => report.server[0].kib_per_connection],
};
const found = {};
for (const file of readdirSync(directory).filter((name) => name.endsWith('.json'))) {
  const [, server, figure] = file.match(/^(.+)\.([a-z0-9]+)\.\d+\.json$/);
  const value = figures[figure][1](JSON.parse(readFileSync(join(directory, file), 'utf8')));
  if (value !== null) ((found[server] ??= {})[figure] ??= []).push(value);
}
const median = (values = []) => [...values].sort((a, b) => a - b)[Math.floor((values.length - 1) / 2)];
const names = Object.keys(figures);
console.log(`| Server | ${names.map((name) => figures[name][0]).join(' | ')} |`);
console.log(`|---|${names.map(() => '---').join('|')}|`);
for (const server of Object.keys(found).sort((a, b) => (b.startsWith('starling') - a.startsWith('starling')) || a.localeCompare(b))) {
  const cells = names.map((name) => {
    const [value, ours] = [median(found[server][name]), median(found.starling?.[name])];
    if (value === undefined) return '–';
    const ratio = server === 'starling' || ours === undefined ? '' : ` (${(value / ours).toFixed(1)} ×)`;
    return value.toFixed(2) + ratio;
  });
  console.log(`| ${server} | ${cells.join(' | ')} |`);
}
