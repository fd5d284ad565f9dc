// The reports of `make bench-growth` as two tables: over gateways, and over Redis shards.
import { figure, head, reports, row, sum, used, verdict } from './reports.mjs';

const all = reports(process.argv[2]);

/// The chats of all these servers at one rate: the highest for which the tester had enough CPU with each of them; if there is none, the
/// lowest.
function chats(names) {
  const rates = Object.keys(all).filter((file) => file.startsWith(`${names[0]}.chat-`)).map((file) => Number(file.split('-').pop()));
  const runs = (rate) => names.map((name) => all[`${name}.chat-${rate}`]);
  const whole = rates.filter((rate) => runs(rate).every(Boolean)).sort((a, b) => a - b);
  const rate = whole.findLast((rate) => runs(rate).every(({ limited }) => limited === null)) ?? whole[0];
  return Object.fromEntries(names.map((name, at) => [name, rate && { rate, report: runs(rate)[at] }]));
}

const counts = (kind) =>
  [...new Set(Object.keys(all).filter((file) => file.startsWith(kind)).map((file) => Number(file.match(/\d+/)[0])))].sort((a, b) => a - b);
const rate = ({ rate, report }) => figure(rate) + (report.limited === null ? '' : ', with a tester short of CPU');
const times = (value, first) => figure(value) + (value && first && value !== first ? `, ${(value / first).toFixed(2)} ×` : '');

const nodes = counts('nodes');
if (nodes.length > 0) {
  head(['Gateways', 'room: deliveries/s', 'µs/delivery', 'Redis µs/publish', 'chats: messages/s', 'µs/message', 'Redis µs/message', 'deliveries']);
  const first = {};
  const chatOf = chats(nodes.map((count) => `nodes-${count}`));
  for (const count of nodes) {
    const room = all[`nodes-${count}.room`];
    const chat = chatOf[`nodes-${count}`];
    const cells = [
      room && used(room, 'gateway', 'cpu_us_per_delivery'),
      room && used(room, 'redis', 'cpu_us_per_publish'),
      chat && used(chat.report, 'gateway', 'cpu_us_per_publish'),
      chat && used(chat.report, 'redis', 'cpu_us_per_publish'),
    ];
    const [delivery, roomRedis, message, chatRedis] = cells.map((value, at) => times(value, (first[at] ??= value)));
    const delivered = room && figure(room.measured.delivered / room.seconds);
    row([count, delivered ?? '–', delivery, roomRedis, chat ? rate(chat) : '–', message, chatRedis, verdict([room, chat?.report].filter(Boolean))]);
  }
}

const shards = counts('shards');
if (shards.length > 0) {
  console.log('\nTwo gateways before a Redis Cluster, in direct chats:\n');
  head(['Shards', 'messages/s', 'gateways, µs/message', 'Redis, µs/message', 'of that each shard', 'messages/s for one core of the busiest shard', 'deliveries']);
  let first;
  const chatOf = chats(shards.map((count) => `shards-${count}`));
  for (const count of shards) {
    const run = chatOf[`shards-${count}`];
    if (!run) continue;
    const each = run.report.server.filter(({ name }) => name.startsWith('redis')).map(({ cpu_us_per_publish }) => cpu_us_per_publish ?? 0);
    const full = 1e6 / Math.max(...each);
    first ??= full;
    row([count, rate(run), figure(used(run.report, 'gateway', 'cpu_us_per_publish')), figure(sum(each)), each.map(figure).join(' + '), times(full, first), verdict([run.report])]);
  }
}
