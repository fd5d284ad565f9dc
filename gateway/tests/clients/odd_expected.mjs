// Where the reaction to odd input is meant to differ from that of the Node server: the case, what comes of it here, and why. A reaction is written as
// over a WebSocket, and holds for polling, too.

const quoted = (frame) => JSON.stringify(frame);

/** Case, or `LEVEL TRANSPORT: case` for one transport only → `{reaction, why}`. */
export const EXPECTED = {};

/** Reasons that hold for every case in which nothing else differs. */
export const REASONS = {
  spelling: 'an event is relayed as it was written, where Node parses it and prints it again',
  ending: 'what ends a polling session is refused with 400, and so is every request after it; Node says 200, and keeps a close packet for the next poll',
};

function expect(why, reactions) {
  for (const [name, reaction] of Object.entries(reactions)) EXPECTED[name] = { reaction, why };
}

function allClosed(why, names) {
  expect(why, Object.fromEntries(names.map((name) => [name, 'closed'])));
}

expect('a parameter that comes twice counts once, the first; Node takes the last, or none', {
  'http: GET ?EIO=4&EIO=3&transport=polling': '200 0{…}, CORS',
  'http: GET ?EIO=3&EIO=4&transport=polling': '400 code 5, CORS',
  'http: GET ?EIO=4&transport=polling&transport=websocket': '200 0{…}, CORS',
});
expect('the protocol is at one path, not below it', {
  'http: a path with two slashes at the end': '404',
  'http: a path below': '404',
});
expect('CORS is for all paths', {
  'http: a path without the slash at the end': '404',
  'http: a path in capitals': '404',
});
expect('the session has a version; requests for it need not say so again', {
  'http: GET with no version, but a session': '200 ok, CORS',
  'http: GET with another version, but a session': '200 ok, CORS',
});

allClosed('a close packet closes, over a WebSocket too, where Node waits for the socket to be closed or for the ping timeout', [
  ...['1', '1x', '10'].map(quoted), 'a message after a close',
]);
allClosed('over a WebSocket, binary is a binary frame; base64 belongs to polling', [
  'b', 'bAQID', 'bAQI', 'b!!!', 'bAQID=', 'b=', 'bAQ==', 'bAQ', 'b4x', 'bAQID\n', 'bA Q I D', 'b-_-_',
].map((frame) => `engine.io websocket: ${quoted(frame)}`));
allClosed('base64 that is none is refused, where Node takes of it what it can', [
  'bAQI', 'b!!!', 'b=', 'bAQID=', 'bAQ', 'b4x', 'bAQID\n', 'bA Q I D', 'b-_-_',
].map((frame) => `engine.io polling: ${quoted(frame)}`));
allClosed('text is UTF-8, and what is not is refused, where Node replaces it', [
  'bytes that are no UTF-8', 'a character cut in two',
]);
expect('octets are refused with 400, whatever else the content type says, and the session lives', {
  octets: 'open',
  'octets, with a parameter': 'open',
});
expect('a WebSocket may take over after a probe only', {
  [`upgrade: ${quoted('5')}`]: 'WebSocket closed · polling: · open',
});
expect('one probe is enough', {
  'upgrade: two probes': '3probe · WebSocket closed · polling: · open',
});

expect('the echo program on Node takes the callback for one more argument, and asks for an acknowledgement', {
  [quoted('421["message",1]')]: '42["message-back",1] · open',
});
expect('white space is no number, where JavaScript takes it for 0, and so for the id of an acknowledgement', {
  [quoted('42 ["message"]')]: '42["message-back"] · open',
  [quoted('42\n["message",\t1]\r\n')]: '42["message-back",1] · open',
  [quoted('42\ufeff["message"]')]: 'closed',
  [quoted('42 1["message-with-ack",1]')]: 'closed',
  [quoted('42 ')]: 'closed',
  [`before joining: ${quoted('40\n')}`]: 'closed',
});
allClosed('the id of an acknowledgement has at most 15 digits, which JavaScript can count; Node answers with another id', [
  ...['9007199254740991', '9007199254740993', '99999999999999999999', '9'.repeat(400)].map((id) => quoted(`42${id}["message-with-ack",1]`)),
  quoted('4399999999999999999999[]'),
]);
expect('an event without a payload is nothing, in whatever namespace', {
  [quoted('42/["message"]')]: 'open',
  [quoted('42/custom')]: 'open',
});
expect('a binary event without a payload is nothing, and waits for nothing', {
  [quoted('451-')]: 'open',
  [quoted('461-')]: 'open',
});
expect('what follows a leave or a join at once finds it done, where Node does both a moment later', {
  'joining another and leaving it': '40/custom,{"sid":SID} · 42/custom,["auth",{}] · open',
});

expect('what came before a bad packet is answered, where Node closes first', {
  'attachments: an attachment too many': '451-["message-back",{"_placeholder":true,"num":0}] · <01> · closed',
});

const [one, two] = ['451-["message-back"', '452-["message-back"'];
const first = '{"_placeholder":true,"num":0}';
const second = '{"_placeholder":true,"num":1}';
expect('attachments and placeholders are relayed as they came, in their order, where Node counts them anew', {
  'attachments: two attachments, placed the other way round': `${two},${second},${first}] · <01> · <02> · open`,
  'attachments: two attachments and twice the same placeholder': `${two},${first},${first}] · <01> · <02> · open`,
  'attachments: one attachment and twice the same placeholder': `${one},${first},${first}] · <01> · open`,
  'attachments: a placeholder in another order': `${one},{"num":0,"_placeholder":true}] · <01> · open`,
  'attachments: a placeholder with more fields': `${one},{"_placeholder":true,"num":0,"x":1}] · <01> · open`,
});
expect('an attachment that nothing refers to is relayed with the others, where Node drops it', {
  'attachments: an attachment without a placeholder': `${one}] · <01> · open`,
  'attachments: an attachment without a placeholder, and an acknowledgement': '461-1["x"] · <01> · open',
  'attachments: two attachments and one placeholder': `${two},${first}] · <01> · <02> · open`,
  'attachments: two attachments and one placeholder, for the second': `${two},${second}] · <01> · <02> · open`,
  'attachments: a placeholder that is none': `${one},{"_placeholder":false,"num":0}] · <01> · open`,
  'attachments: a placeholder that is "true"': `${one},{"_placeholder":"true","num":0}] · <01> · open`,
  'attachments: a placeholder that is 1': `${one},{"_placeholder":1,"num":0}] · <01> · open`,
  'attachments: a placeholder as text': `${one},"{\\"_placeholder\\":true,\\"num\\":0}"] · <01> · open`,
});
allClosed('the number of a placeholder is written as clients write it', [
  'attachments: a placeholder with the number 0.0', 'attachments: a placeholder with the number -0',
]);
allClosed('the depth of JSON is bounded; the Node server dies of the deeper one', ['100 levels deep', '5000 levels deep']);
