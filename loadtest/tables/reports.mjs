// What the tables share: reading reports of `loadtest --json`, and writing cells.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/// All reports of a directory, by the name of their file without `.json`.
export function reports(directory) {
  const files = readdirSync(directory).filter((name) => name.endsWith('.json'));
  return Object.fromEntries(files.map((name) => [name.slice(0, -5), JSON.parse(readFileSync(join(directory, name), 'utf8'))]));
}

/// Why something was not measured, by its name.
export function reasons(directory) {
  const files = readdirSync(directory).filter((name) => name.endsWith('.why'));
  return Object.fromEntries(files.map((name) => [name.slice(0, -4), readFileSync(join(directory, name), 'utf8').trim()]));
}

export const sum = (values) => values.reduce((all, value) => all + value, 0);

export const median = (values) => [...values].sort((a, b) => a - b)[Math.floor((values.length - 1) / 2)];

/// A number with as many digits as say something.
export function figure(value) {
  if (value === undefined || value === null || Number.isNaN(value)) return '–';
  if (value >= 100) return Math.round(value).toLocaleString('en-US');
  return value.toFixed(value >= 10 ? 1 : 2);
}

/// What the processes of one program used for each delivery or publish, together; `key` names the field.
export function used(report, program, key) {
  const values = report.server.filter(({ name }) => name.startsWith(program)).map((used) => used[key]);
  return values.length > 0 && values.every((value) => value !== null) ? sum(values) : undefined;
}

/// What all deliveries of some runs came to.
export function verdict(runs) {
  const total = (key) => sum(runs.map(({ total }) => total[key]));
  const faults = { lost: Math.max(0, total('due') - total('delivered')), 'came twice': total('repeated'), 'out of order': total('reordered'), astray: total('misdelivered') };
  const named = Object.entries(faults).filter(([, count]) => count > 0);
  if (total('delivered') === 0) return 'none came';
  return named.length === 0 ? `${figure(total('delivered'))}, all exact` : named.map(([name, count]) => `${count} ${name}`).join(', ');
}

export function row(cells) {
  console.log(`| ${cells.join(' | ')} |`);
}

export function head(cells) {
  row(cells);
  console.log(`|${cells.map(() => '---').join('|')}|`);
}
