// The reports of `make bench-peers` as one table: the median of all rounds, their spread, and how many times Starling's it is. Servers
// with Redis are held against Starling with Redis.
import { figure, head, median, reasons, reports, row, verdict } from './reports.mjs';

const directory = process.argv[2];
const columns = {
  window4: ['µs/delivery, 4 under way', ({ server }) => server[0].cpu_us_per_delivery],
  window32: ['µs/delivery, 32 under way', ({ server }) => server[0].cpu_us_per_delivery],
  paced: ['µs/delivery, 20 messages/s', ({ server }) => server[0].cpu_us_per_delivery],
  idle: ['KiB/idle connection', ({ server }) => server[0].kib_per_connection],
};
const found = {};
const judged = {};
for (const [name, report] of Object.entries(reports(directory))) {
  const [, server, column] = name.match(/^(.+)\.([a-z0-9]+)\.\d+$/);
  const value = columns[column][1](report);
  if (value !== null) ((found[server] ??= {})[column] ??= []).push(value);
  (judged[server] ??= []).push(report);
}

// Starling first among those that are alike.
const rank = (name) => [name.endsWith('redis'), !name.startsWith('starling'), name].join();
const why = reasons(directory);
const servers = [...new Set([...Object.keys(judged), ...Object.keys(why)])].sort((a, b) => rank(a).localeCompare(rank(b)));
head(['Server', ...Object.values(columns).map(([title]) => title), 'deliveries']);
for (const server of servers) {
  if (why[server]) {
    row([server, ...Object.keys(columns).map(() => '–'), `not measured: ${why[server]}`]);
    continue;
  }
  const ours = found[server.endsWith('redis') ? 'starling-redis' : 'starling'];
  const cells = Object.keys(columns).map((column) => {
    const values = found[server][column];
    if (!values) return '–';
    const spread = values.length > 1 ? ` (${figure(Math.min(...values))} to ${figure(Math.max(...values))})` : '';
    const ratio = ours?.[column] && ours !== found[server] ? `, ${(median(values) / median(ours[column])).toFixed(1)} ×` : '';
    return figure(median(values)) + spread + ratio;
  });
  row([server, ...cells, verdict(judged[server])]);
}
