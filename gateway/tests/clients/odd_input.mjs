// Input that no well-behaved client sends, and some that one may: `[name, what is sent]`. Where there is no name of its own, the input is it.

const bytes = (...values) => Buffer.from(values);
const named = (entry) => (typeof entry === 'string' ? [JSON.stringify(entry), [entry]] : entry);
const ESCAPED = '\\u006dessage';
const placeholder = (num) => `{"_placeholder":true,"num":${num}}`;
const nested = (depth) => '['.repeat(depth) + ']'.repeat(depth);

const polling = 'EIO=4&transport=polling';
const upgradeHeaders = {
  connection: 'Upgrade',
  upgrade: 'websocket',
  'sec-websocket-version': '13',
  'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
};

/** Single requests; `session` adds the sid of a new polling session. */
export const requestCases = [
  ...[
    '', 'EIO=4', 'transport=polling', 'EIO=3&transport=polling', 'EIO=5&transport=polling', 'EIO=04&transport=polling',
    'EIO=4.0&transport=polling', 'EIO=%204&transport=polling', 'EIO=-4&transport=polling', 'EIO=&transport=polling',
    'EIO=4&EIO=3&transport=polling', 'EIO=3&EIO=4&transport=polling', 'EIO=4&EIO=4&transport=polling', 'eio=4&transport=polling',
    'EIO=4&transport=', 'EIO=4&transport=POLLING', 'EIO=4&transport=polling2', 'EIO=4&transport=websocket',
    'EIO=4&transport=webtransport', 'EIO=4&transport=__proto__', 'EIO=4&transport=constructor', 'EIO=4&transport=flashsocket',
    'EIO=4&transport=polling&transport=websocket', 'EIO=4&transport=polling&transport=polling', 'transport=polling&EIO=4',
    `${polling}&t=abc`, `${polling}&b64=1`, `${polling}&sid=`, `${polling}&sid=x`, `${polling}&sid=__proto__`,
    `${polling}&sid=constructor`, `${polling}&sid=${'x'.repeat(2000)}`, `${polling}&sid=%00`, `${polling}&sid=x&sid=y`,
    `${polling}&token=a%26b&unknown[]=1`, 'EIO%3D4&transport=polling', 'EIO=%34&transport=%70olling', `${polling}&`, `&&${polling}`,
    `${polling}&x=%zz`, `${polling}&x=%ff`, `${polling}&x=+`,
  ].map((query) => [`GET ?${query.length > 100 ? `${query.slice(0, 60)}…` : query}`, { query }]),
  ...['HEAD', 'POST', 'PUT', 'DELETE', 'PATCH'].map((method) => [`${method} without a session`, { query: polling, method }]),
  ...['HEAD', 'PUT', 'DELETE', 'PATCH'].map((method) => [`${method} with a session`, { query: polling, method, session: true }]),
  ['OPTIONS', { query: polling, method: 'OPTIONS' }],
  ['OPTIONS, cross-origin', {
    query: polling,
    method: 'OPTIONS',
    headers: { origin: 'https://app.example', 'access-control-request-method': 'POST' },
  }],
  ['GET with another transport than the session has', { query: 'EIO=4&transport=websocket', session: true }],
  ['GET with no transport, but a session', { query: 'EIO=4', session: true }],
  ['GET with no version, but a session', { query: 'transport=polling', session: true, method: 'POST', body: '4x' }],
  ['GET with another version, but a session', { query: 'EIO=3&transport=polling', session: true, method: 'POST', body: '4x' }],
  ['POST an open packet without a session', { query: polling, method: 'POST', body: '0' }],
  ['GET with an origin', { query: polling, headers: { origin: 'https://app.example' } }],
  ['an error with an origin', { query: 'EIO=4&transport=x', headers: { origin: 'https://app.example' } }],
  ['a path without the slash at the end', { path: '/engine.io', query: polling }],
  ['a path with two slashes at the end', { path: '/engine.io//', query: polling }],
  ['a path below', { path: '/engine.io/x', query: polling }],
  ['a path in capitals', { path: '/ENGINE.IO/', query: polling }],
];

/** Whole polling payloads, which are no list of packets. */
export const bodyCases = [
  ['an empty payload', { body: '' }],
  ['a separator only', { body: '\x1e' }],
  ['a separator first', { body: '\x1e4a' }],
  ['a separator last', { body: '4a\x1e' }],
  ['two separators', { body: '4a\x1e\x1e4b' }],
  ['a good packet before a bad one', { body: '4a\x1ex\x1e4b' }],
  ['a good packet after a close', { body: '4a\x1e1\x1e4b' }],
  ['a payload of protocol 3', { body: '7:4hello' }],
  ['a payload of JSONP', { body: 'd=4hello', headers: { 'content-type': 'application/x-www-form-urlencoded' } }],
  ['a form', { body: '4hello', headers: { 'content-type': 'application/x-www-form-urlencoded' } }],
  ['JSON', { body: '4hello', headers: { 'content-type': 'application/json' } }],
  ['octets', { body: bytes(0x34, 0x61), headers: { 'content-type': 'application/octet-stream' } }],
  ['octets, with a parameter', { body: bytes(0x34, 0x61), headers: { 'content-type': 'application/octet-stream; x=y' } }],
  ['another charset', { body: '4hello', headers: { 'content-type': 'text/plain;charset=ISO-8859-1' } }],
  ['a byte order mark', { body: '\ufeff4hello' }],
  ['bytes that are no UTF-8', { body: bytes(0x34, 0xff, 0xfe, 0x61) }],
  ['a character cut in two', { body: bytes(0x34, 0xe4, 0xb8) }],
  ['a line end after it', { body: '4hello\n' }],
  ['one packet in each payload of a thousand', { body: Array(1000).fill('4x').join('\x1e') }],
];

/** Frames for the Engine.IO echo program. */
export const engineCases = [
  '4', '4x', '44', '4\x1e4b', '', ' ', ' 4x', '\x1e', '\0', '\ufeff4x', '\uff14x', 'x', 'abc', '7', '8', '9', '-1', '10', '4'.repeat(300),
  '0', '0{}', '0{"sid":"x"}', '1', '1x', '2', '2x', '2probe', '3', '3x', '3probe', '5', '5x', '6', '6x',
  'b', 'bAQID', 'bAQI', 'b!!!', 'bAQID=', 'b=', 'bAQ==', 'bAQ', 'b4x', 'bAQID\n', 'bA Q I D', 'b-_-_', 'B', '4bAQID',
  ['no frame', []],
  ['an empty binary frame', [bytes()]],
  ['a binary frame', [bytes(1, 2, 3)]],
  ['a binary frame that looks like text', [Buffer.from('4hello')]],
  ['a binary frame that looks like a close', [Buffer.from('1')]],
  ['pongs', ['3', '3', '3']],
  ['a message after a close', ['1', '4x']],
  ['a message before a bad packet', ['4x', 'abc']],
  ['text that is no UTF-8', [{ raw: bytes(0x81, 0x83, 0, 0, 0, 0, 0x34, 0xff, 0xfe) }]],
  ['a frame without a mask', [{ raw: bytes(0x81, 0x02, 0x34, 0x61) }]],
  ['a frame with a reserved bit', [{ raw: bytes(0xc1, 0x82, 0, 0, 0, 0, 0x34, 0x61) }]],
  ['a frame of no known kind', [{ raw: bytes(0x83, 0x82, 0, 0, 0, 0, 0x34, 0x61) }]],
  ['a continuation of nothing', [{ raw: bytes(0x80, 0x82, 0, 0, 0, 0, 0x34, 0x61) }]],
  ['a message in two fragments', [{ raw: bytes(0x01, 0x82, 0, 0, 0, 0, 0x34, 0x61, 0x80, 0x81, 0, 0, 0, 0, 0x62) }]],
  ['a WebSocket ping', [{ raw: bytes(0x89, 0x81, 0, 0, 0, 0, 0x61) }]],
  ['a WebSocket pong', [{ raw: bytes(0x8a, 0x81, 0, 0, 0, 0, 0x61) }]],
].map(named);

/** Frames of a WebSocket with the sid of a polling session. */
export const upgradeCases = [
  '2', '2x', '2prob', '2probe ', '3probe', '4x', '5', '6', '1', '0', '', 'x', 'b',
  ['no frame', []],
  ['a probe only', ['2probe']],
  ['two probes', ['2probe', '2probe']],
  ['a probe, then a message', ['2probe', '4x']],
  ['a probe, then a close', ['2probe', '1']],
  ['a probe, then a pong', ['2probe', '3']],
  ['a probe, then a noop', ['2probe', '6']],
  ['a probe, then nonsense', ['2probe', 'x']],
  ['a probe, then binary', ['2probe', bytes(1)]],
  ['a binary probe', [Buffer.from('2probe')]],
  ['an upgrade with more to say', ['2probe', '5x']],
].map(named);

/** Frames for a connection that has joined no namespace. */
const joining = [
  '42["message"]', '41', '43[]', '44', '44{}', '45-', '451-["message"]', '4', '48', '4x', '3', '6', '0{}', 'bAQID',
  '40', '40{}', '40{"token":"a"}', '40{"a":1', '40{}x', '40[]', '40"x"', '401', '40null', '40true', '40 {}', '40{} ', '40{ }', '40\n',
  '40/', '40/,', '40/,{}', '40,', '40,{}', '40custom', '40?token=1', '40/?token=1', '40/?token=1,{}', '40//', '40/ ', '40/a/b', '40/CUSTOM',
  '40/random', '40/random,', '40/random,{}', '40/random{}', '40/random,[]', '40/random,{', '40/custom?x=1', '40/custom?x=1,', '40/custom/',
  '40/rändom', '40/"x"', '40/__proto__', '40/constructor', '400', '400{}', '40-{}', '401-{}', '4012{"a":1}', '40/random,12', '40/random,12{}',
  '40{"__proto__":{"a":1}}', '40{"sid":"x"}', '40{"pid":"x","offset":"y"}', '40{"pid":1,"offset":{}}', '40{"n":9007199254740993}',
  ['binary', [bytes(1)]],
  ['nothing', []],
].map(named);

const reserved = ['connect', 'connect_error', 'disconnect', 'disconnecting', 'newListener', 'removeListener'];
const args = [
  '9007199254740993', '-9007199254740993', '123456789012345678901234567890', '1e400', '-1e400', '1e-400', '0.1', '1.0', '1.10', '1E2', '1e+2',
  '100000000000000000000000', '-0', '0', '[]', '{}', 'null', 'true', '""', '"\\u0041"', '"\\/"', '"\\u2028"', '"\u2028"', '"\\ud800"',
  '"\\ud83d\\ude00"', '"\\u0000"', '"\x7f"', '{"a":1,"a":2}', '{"__proto__":1}', '{"constructor":1}', '{"toJSON":1}', '{"length":1}', '{"":1}',
  '{"b":1,"a":2}', '{"2":1,"1":2}', '{"type":"Buffer","data":[1]}', placeholder(0), placeholder(7), '{"_placeholder":true}', nested(50),
];
const broken = [
  '42["message"', '42["message"]x', '42["message"]]', '42["message"],', '42["message"]\0', '42["message"][]', '42["message",]', '42[,"message"]',
  '42["message" 1]', '42["message":1]', "42['message']", '42[message]', '42["message",NaN]', '42["message",Infinity]', '42["message",undefined]',
  '42["message",0x1]', '42["message",01]', '42["message",.5]', '42["message",1.]', '42["message",+1]', '42["message",1e]', '42["message",-]',
  '42["message","\x01"]', '42["message","\n"]', '42["message","\\x"]', '42["message","\\u12"]', '42["message","]', '42["message",{a:1}]',
  '42["message",{"a"}]', '42["message",{"a":1,}]', '42["message",tru]', '42["message"/*x*/]', '42\ufeff["message"]', '42["message"]//x',
  '42["message",[1}]', '42"message"', '42message', '42null', '42true', '421', '42{}', '42{"0":"message"}', '42[', '42]', '42[]', '42[ ]',
];

/** Frames for a connection that has joined the main namespace. */
const joined = [
  '4', '4 ', '47', '48[]', '49', '4a', '4-1', '40', '40{}', '40/,{}', '41', '41{}', '41[]', '41"x"', '411', '41 ', '41/', '41/,', '41/custom',
  '41/custom,{}', '41/random', '40/custom', '40/random', '3', '3probe', '6', '5', '0{}', '2', '2probe', '1', 'bAQID', '',
  '42', '42 ', '42[1]', '42[1,2]', '42[0]', '42[1.5]', '42[null]', '42[true]', '42[{}]', '42[["message"]]', '42[""]', '42[" message"]',
  '42["message"]', '42["MESSAGE"]', '42["nobody"]', '42["__proto__"]', '42["constructor"]', '42["hasOwnProperty"]', '42["error",{}]',
  '42["ping"]', '42["connection"]', '42["auth",{}]',
  ...reserved.map((name) => `42["${name}"]`), '42["CONNECT"]', '42["disconn\\u0065ct"]',
  `42["${ESCAPED}",1]`, '42 ["message"]', '42[ "message" , 1 ]', '42\n["message",\t1]\r\n', '42["message",1] ', '42/,["message",1]', '42/["message"]',
  '42/custom,["message"]', '42/custom', '42/random,["message"]', '42/,', '42/,[]', '42/custom?,["message"]', '42/cus"tom,["message"]', '42,["message"]',
  ...broken, ...args.map((arg) => `42["message",${arg}]`),
  '420["message-with-ack",1]', '421["message-with-ack"]', '42007["message-with-ack",1]', '4200["message-with-ack",1]',
  '422147483648["message-with-ack",1]', '429007199254740991["message-with-ack",1]', '429007199254740993["message-with-ack",1]',
  '4299999999999999999999["message-with-ack",1]', `42${'9'.repeat(400)}["message-with-ack",1]`, '42-1["message-with-ack",1]',
  '421.5["message-with-ack",1]', '421e3["message-with-ack",1]', '42 1["message-with-ack",1]', '421 ["message-with-ack",1]',
  '42+1["message-with-ack",1]', '42\u0661["message-with-ack",1]', '42/,5["message-with-ack",1]', '42["message-with-ack",1]', '421["message",1]',
  '421["nobody"]', '421', '421[]', '421["connect"]', '421["message-with-ack",{"a":[1e400]}]', '421[ "message-with-ack" , 1 ]',
  '43', '43[]', '43[1]', '431', '431[]', '431["x"]', '431{}', '431null', '431"x"', '431[', '43007[]', '43a[]', '43-1[]', '43/custom,1[]',
  '4399999999999999999999[]', '44', '44{}', '44"x"', '44{"message":"x"}', '44[]', '44/custom,{"message":"x"}',
  '45', '45-', '45-["message"]', '450-', '450-["message"]', '45["message"]', '45a-["message"]', '45-1-["message"]', '451', '451-', '451["message"]',
  '451.5-["message"]', '451e0-["message"]', '45 1-["message"]', '4501-["message",{}]', '45999999999-["message"]', '45x',
  '451-[]', '451-{}', '451-[null]', '451-[1]', '451-["connect"]', '451-["message"', '451-/custom,["message"]', '451/custom,-["message"]',
  '46', '46-', '460-1[]', '461-', '461-1{}', '461-[]',
].map(named);

const attachments = [
  ['one attachment', [`451-["message",${placeholder(0)}]`, bytes(1)]],
  ['two attachments', [`452-["message",${placeholder(0)},${placeholder(1)}]`, bytes(1), bytes(2)]],
  ['two attachments, placed the other way round', [`452-["message",${placeholder(1)},${placeholder(0)}]`, bytes(1), bytes(2)]],
  ['an empty attachment', [`451-["message",${placeholder(0)}]`, bytes()]],
  ['an attachment without a placeholder', ['451-["message"]', bytes(1)]],
  ['an attachment without a placeholder, and an acknowledgement', ['451-1["message-with-ack","x"]', bytes(1)]],
  ['two attachments and one placeholder', [`452-["message",${placeholder(0)}]`, bytes(1), bytes(2)]],
  ['two attachments and one placeholder, for the second', [`452-["message",${placeholder(1)}]`, bytes(1), bytes(2)]],
  ['two attachments and twice the same placeholder', [`452-["message",${placeholder(0)},${placeholder(0)}]`, bytes(1), bytes(2)]],
  ['one attachment and twice the same placeholder', [`451-["message",${placeholder(0)},${placeholder(0)}]`, bytes(1)]],
  ['an attachment too few', [`452-["message",${placeholder(0)},${placeholder(1)}]`, bytes(1)]],
  ['an attachment too many', [`451-["message",${placeholder(0)}]`, bytes(1), bytes(2)]],
  ['text in place of an attachment', [`451-["message",${placeholder(0)}]`, '42["message"]']],
  ['a pong before the attachment', [`451-["message",${placeholder(0)}]`, '3', bytes(1)]],
  ['a disconnect before the attachment', [`451-["message",${placeholder(0)}]`, '41', bytes(1)]],
  ['another binary event before the attachment', [`451-["message",${placeholder(0)}]`, `451-["message",${placeholder(0)}]`, bytes(1), bytes(2)]],
  ['a placeholder in the place of the name', [`451-[${placeholder(0)}]`, bytes(1)]],
  ['a reserved name', [`451-["disconnect",${placeholder(0)}]`, bytes(1)]],
  ['a number as name', [`451-[7,${placeholder(0)}]`, bytes(1)]],
  ...['1', '-1', '1.5', '0.0', '"0"', 'null', 'true', '[]', '1e0', '9999999999', '-0', '00'].map((num) =>
    [`a placeholder with the number ${num}`, [`451-["message",${placeholder(num)}]`, bytes(1)]]),
  ['a placeholder without a number', ['451-["message",{"_placeholder":true}]', bytes(1)]],
  ['a placeholder that is none', ['451-["message",{"_placeholder":false,"num":0}]', bytes(1)]],
  ['a placeholder that is "true"', ['451-["message",{"_placeholder":"true","num":0}]', bytes(1)]],
  ['a placeholder that is 1', ['451-["message",{"_placeholder":1,"num":0}]', bytes(1)]],
  ['a placeholder in another order', ['451-["message",{"num":0,"_placeholder":true}]', bytes(1)]],
  ['a placeholder with more fields', ['451-["message",{"_placeholder":true,"num":0,"x":1}]', bytes(1)]],
  ['a placeholder with spaces', ['451-["message",{ "_placeholder" : true , "num" : 0 }]', bytes(1)]],
  ['a placeholder with an escape', ['451-["message",{"_pl\\u0061ceholder":true,"num":0}]', bytes(1)]],
  ['a placeholder as text', [String.raw`451-["message","{\"_placeholder\":true,\"num\":0}"]`, bytes(1)]],
  ['a placeholder deep inside', [`451-["message",{"a":[[{"b":${placeholder(0)}}]]}]`, bytes(1)]],
  ['an acknowledgement', [`451-5["message-with-ack",${placeholder(0)}]`, bytes(1)]],
  ['an acknowledgement that nobody waits for', [`461-5[${placeholder(0)}]`, bytes(1)]],
  ['a namespace that is not joined', [`451-/custom,["message",${placeholder(0)}]`, bytes(1)]],
  ['the main namespace by name', [`451-/,["message",${placeholder(0)}]`, bytes(1)]],
  ['ten attachments', [`4510-["message",${[...Array(10).keys()].map(placeholder)}]`, ...Array(10).fill(bytes(1))]],
  ['eleven attachments', [`4511-["message",${[...Array(11).keys()].map(placeholder)}]`, ...Array(11).fill(bytes(1))]],
  ['a number of attachments with a zero before it', [`4501-["message",${placeholder(0)}]`, bytes(1)]],
  ['an attachment of which nothing was said', [bytes(1)]],
].map(([name, frames]) => [`attachments: ${name}`, frames]);

const extremes = [
  ['100 levels deep', [`42["message",${nested(100)}]`]],
  ['1000 events at once', Array.from({ length: 1000 }, (_, number) => `42["message",${number}]`)],
  ['10000 arguments', [`42["message",${Array(10_000).fill(1)}]`]],
  ['an event name of 10000 characters', [`42["${'x'.repeat(10_000)}"]`]],
  ['a namespace of 10000 characters', [`40/${'x'.repeat(10_000)}`]],
  ['100 namespaces that are not there', Array.from({ length: 100 }, (_, number) => `40/n${number}`)],
  ['5000 levels deep', [`42["message",${nested(5000)}]`], { kills: true }],
  ['100000 levels deep, never closed', [`42["message",${'['.repeat(100_000)}`]],
  ['leaving and joining again at once', ['41/custom', '40/custom']],
  ['joining another and leaving it', ['40/custom', '41/custom']],
];

export const socketCases = { joining, joined: [...joined, ...attachments, ...extremes] };
