// The reports of `make bench-engine` as tables: rooms, chats, idle connections.
import { figure, head, reasons, reports, row, used, verdict } from './reports.mjs';

const directory = process.argv[2];
const all = reports(directory);
const servers = { alone: 'standalone', 'nodes-1': 'cluster, 1 gateway', 'nodes-2': 'cluster, 2 gateways' };
const paces = { window32: '32 under way', window4: '4 under way', paced: 'paced' };

const rooms = {};
for (const [name, report] of Object.entries(all)) {
  const [, server, members, bytes, pace] = name.match(/^(.+)\.room-(\d+)-(\d+)-(\w+)$/) ?? [];
  if (server) (((rooms[`${members},${bytes}`] ??= {})[server] ??= {})[pace] = report);
}
const known = Object.keys(servers).filter((server) => Object.values(rooms).some((room) => room[server]));
if (known.length > 0) {
  console.log('µs of the gateways\' CPU for each delivery:\n');
  head(['Room', 'Body', ...known.flatMap((server) => Object.values(paces).map((pace) => `${servers[server]}: ${pace}`)), 'deliveries']);
  const order = (key) => key.split(',').map(Number);
  for (const key of Object.keys(rooms).sort((a, b) => order(a)[0] - order(b)[0] || order(a)[1] - order(b)[1])) {
    const [members, bytes] = order(key);
    const runs = known.flatMap((server) => Object.keys(paces).map((pace) => rooms[key][server]?.[pace]));
    row([members.toLocaleString('en-US'), `${bytes} B`, ...runs.map((run) => figure(run && used(run, 'gateway', 'cpu_us_per_delivery'))), verdict(runs.filter(Boolean))]);
  }
}

const chats = Object.keys(servers).filter((server) => all[`${server}.chat`]);
if (chats.length > 0) {
  console.log('\nDirect chats, with typing and receipts for half of the messages:\n');
  head(['Server', 'messages/s', 'gateways, µs/message', 'µs/delivery', 'Redis, µs/message', 'deliveries']);
  for (const server of chats) {
    const report = all[`${server}.chat`];
    const { accepted } = report.measured;
    row([
      servers[server],
      figure(accepted / report.seconds),
      figure(used(report, 'gateway', 'cpu_us_per_publish')),
      figure(used(report, 'gateway', 'cpu_us_per_delivery')),
      server === 'alone' ? 'none' : figure(used(report, 'redis', 'cpu_us_per_publish')),
      verdict([report]),
    ]);
  }
}

const transports = {
  websocket: 'Centrifuge JSON, WebSocket',
  sse: 'Centrifuge JSON, SSE',
  http_stream: 'Centrifuge JSON, HTTP stream',
  socketio: 'Socket.IO, WebSocket',
  phoenix: 'Phoenix, WebSocket',
  cluster: 'Centrifuge JSON, WebSocket, in a cluster',
};
const why = reasons(directory);
const idle = Object.keys(transports).filter((name) => all[`idle.${name}`] ?? why[`idle.${name}`]);
if (idle.length > 0) {
  console.log('\nIdle connections:\n');
  head(['Transport', 'connections', 'gateways', 'KiB each', 'µs/s of CPU each', 'µs to connect one']);
  for (const name of idle) {
    const report = all[`idle.${name}`];
    if (!report) {
      row([transports[name], '–', '–', `not measured: ${why[`idle.${name}`]}`, '–', '–']);
      continue;
    }
    const gateways = report.server.filter((used) => used.name === 'gateway');
    const of = (what) =>
      Object.entries(report.figures)
        .filter(([key]) => key.startsWith('gateway') && key.endsWith(what))
        .reduce((all, [, value]) => all + value, 0);
    row([
      transports[name],
      report.connections.toLocaleString('en-US'),
      gateways.length,
      figure(used(report, 'gateway', 'kib_per_connection')),
      figure(of('of each connection')),
      figure(of('to connect one')),
    ]);
  }
}
