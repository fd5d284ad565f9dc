// Where Starling's reaction to odd input is meant to differ from that of the Node server: the case, with or without its transport, what Starling
// does, and why.

export const EXPECTED = {
  /** For every case in which the packets mean the same and only look different. */
  spelling: { why: 'an event is relayed as it was written, where Node parses it and prints it again' },
};

function expect(why, reactions) {
  for (const [name, reaction] of Object.entries(reactions)) EXPECTED[name] = { reaction, why };
}

expect('the depth of JSON is bounded; the Node server dies of this one', {
  '5000 levels deep': ['closed', 'POST 200 · closed'],
});

expect('the echo program on Node takes the callback for one more argument, and asks for an acknowledgement', {
  [JSON.stringify('421["message",1]')]: ['42["message-back",1] · open', 'POST 200 · 42["message-back",1] · open'],
});
