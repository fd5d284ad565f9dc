// The chat page in real Chromium: two people on two nodes talk; one is cut off, and comes back to everything.

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { chromium } from 'playwright-core';
import { STEP_MS_MAX, env, main, openLink, run, step, token, until } from './lib.mjs';

const [A, B] = [env('URL_A'), env('URL_B')];
const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const shots = process.env.SHOT_DIR;
const args = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  // In a container, the memory that it would share is too small for it.
  '--disable-dev-shm-usage',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];
const DESKTOP = { width: 1100, height: 800 };
const PHONE = { width: 390, height: 844 };

const [alice, bob] = [`alice-${run}`, `bob-${run}`];
const conversation = `conv_${alice}_${bob}`;

await main('page', async () => {
  const browser = await chromium.launch({ executablePath, args, timeout: 2 * STEP_MS_MAX });
  try {
    await talk(browser);
  } finally {
    await browser.close();
  }
});

async function talk(browser) {
  const link = await openLink(B);
  const complaints = [];
  const near = await person(browser, A, alice, DESKTOP, complaints);
  const far = await person(browser, link.url, bob, PHONE, complaints);

  await step('the form takes a name and a partner', async () => {
    await near.page.goto(`${A}/chat`);
    await shot(near, 'form-desktop');
    await near.page.getByLabel('Your name').fill(alice);
    await near.page.getByLabel('Talk to').fill(bob);
    await near.page.getByRole('button', { name: 'Start' }).click();
    await near.is('connected');
    assert.equal(new URL(near.page.url()).searchParams.get('conversation'), conversation);
    const invitation = near.page.getByRole('link', { name: `Open another tab as ${bob}` });
    assert.equal(await invitation.getAttribute('href'), `/chat?user=${bob}&conversation=${conversation}`);
  });

  await step('the other comes by a link', async () => {
    await far.open();
    await far.is('connected');
  });

  await step('they talk, and both see the same', async () => {
    await near.say('Hello from node A');
    await far.sees(['Hello from node A']);
    await far.say('Grüße zurück 世界 🐦');
    await near.sees(['Hello from node A', 'Grüße zurück 世界 🐦']);
    await near.say('<b>not bold</b> & so on');
    await far.sees(['Hello from node A', 'Grüße zurück 世界 🐦', '<b>not bold</b> & so on']);
  });

  await step('what was sent is accepted, then stored', async () => {
    await until('everything of alice is marked stored', async () => {
      const marks = await near.page.locator('li.mine .mark').allTextContents();
      return marks.length === 2 && marks.every((mark) => mark === '✓✓');
    });
    await shot(near, 'talk-desktop');
    await shot(far, 'talk-phone');
  });

  await step('what was read is marked, in the list of who it was sent to nothing is unread', async () => {
    await until('everything of alice is marked read', async () => {
      const states = await near.page.locator('li.mine').evaluateAll((items) => items.map((item) => item.dataset.state));
      return states.length === 2 && states.every((state) => state === 'read');
    });
    assert.equal(await near.page.locator('li.mine .mark').first().getAttribute('aria-label'), `Read by ${bob}`);
  });

  await step('who types is seen, until the message is there', async () => {
    await near.page.getByLabel('Message', { exact: true }).pressSequentially('thinking');
    await far.page.getByText(`${alice} is typing`).waitFor();
    await shot(far, 'typing-phone');
    await near.page.getByLabel('Message', { exact: true }).fill('');
    await far.page.locator('#typing').waitFor({ state: 'hidden' });
  });

  await step('reactions, edits and deletions by keyboard are seen on the other side', async () => {
    const last = far.page.locator('#log li').last();
    await last.getByRole('button', { name: 'React with 👍' }).focus();
    await far.page.keyboard.press('Enter');
    await near.page.getByRole('button', { name: `👍 by ${bob}` }).waitFor();
    await shot(near, 'reaction-desktop');
    await near.page.getByLabel('Message', { exact: true }).focus();
    await near.page.keyboard.press('ArrowUp');
    await near.say('<b>still not bold</b>');
    await far.has('<b>still not bold</b>');
    assert.equal(await far.page.locator('#log li .edited').last().textContent(), 'edited');
    near.page.once('dialog', (dialog) => dialog.accept());
    await near.page.locator('#log li').last().getByRole('button', { name: 'Delete' }).focus();
    await near.page.keyboard.press('Enter');
    await far.has('Message deleted');
    await shot(far, 'deleted-phone');
  });

  await step('the list shows who is online, and what is unread in a conversation that is not open', async () => {
    await far.page.getByRole('button', { name: 'Back to the list' }).click();
    await far.page.locator('.dot[data-online="true"]').waitFor();
    await far.page.getByText('New conversation').click();
    await far.page.getByLabel('People').fill(`${alice}, carol-${run}`);
    await far.page.getByLabel('Name of the group').fill('Picnic');
    await far.page.getByRole('button', { name: 'Create' }).click();
    await until('the group is open', async () => (await far.page.locator('#where').textContent()) === 'Picnic');
    await far.say('Who brings the cake?');
    const row = near.page.getByRole('button', { name: /Picnic/ });
    await row.locator('.badge', { hasText: '1' }).waitFor();
    await shot(near, 'unread-desktop');
    await far.page.getByRole('button', { name: 'Back to the list' }).click();
    await shot(far, 'list-phone');
    await row.click();
    await near.has('Who brings the cake?');
    await until('nothing is unread', () => row.locator('.badge').isHidden());
    await near.open();
    await near.is('connected');
    await far.open();
    await far.is('connected');
  });

  const said = ['Hello from node A', 'Grüße zurück 世界 🐦', 'Message deleted'];
  const missed = Array.from({ length: 5 }, (_, number) => `while you were away ${number + 1}`);
  await step('one is cut off, and both go on writing', async () => {
    link.cut();
    await far.context.setOffline(true);
    await far.is('reconnecting');
    await far.say('from the tunnel 1');
    await far.say('from the tunnel 2');
    assert.deepEqual(await far.page.locator('li[data-state="sending"] .text').allTextContents(), [
      'from the tunnel 1', 'from the tunnel 2',
    ]);
    await shot(far, 'cut-off-phone');
    for (const text of missed) await near.say(text);
    await until('alice has all accepted', async () => (await near.page.locator('[data-state="sending"]').count()) === 0);
  });

  await step('and returns to everything in order, once', async () => {
    link.mend();
    await far.context.setOffline(false);
    await far.is('connected');
    const all = [...said, ...missed, 'from the tunnel 1', 'from the tunnel 2'];
    await Promise.all([near.sees(all), far.sees(all)]);
    await near.say('live again');
    await Promise.all([near.sees([...all, 'live again']), far.sees([...all, 'live again'])]);
    await shot(far, 'returned-phone');
  });

  await step('what waits survives a reload, and is sent once', async () => {
    link.cut();
    await far.is('reconnecting');
    await far.say('written in the dark');
    link.mend();
    await far.open();
    await far.is('connected');
    await near.has('written in the dark');
    await far.has('written in the dark');
    assert.equal(await far.page.locator('#log').getByText('written in the dark').count(), 1);
    assert.equal(await near.page.locator('#log').getByText('written in the dark').count(), 1);
  });

  await step('earlier messages are loaded on demand', async () => {
    const more = 60;
    for (let number = 0; number < more; number += 1) await near.say(`many ${number}`);
    await far.has(`many ${more - 1}`);
    await far.open();
    await far.is('connected');
    await far.has(`many ${more - 1}`);
    assert.equal(await far.page.locator('#log').getByText('Hello from node A').count(), 0);
    await far.page.getByRole('button', { name: 'Load earlier messages' }).click();
    await far.has('Hello from node A');
    await until('there is nothing earlier', () => far.page.locator('#earlier').isHidden());
    await Promise.all([near, far].map(async (side) => {
      const seqs = (await side.page.locator('li[data-seq]').evaluateAll((items) => items.map((item) => item.dataset.seq)));
      assert.deepEqual(seqs, [...new Set(seqs)].sort((one, other) => one - other));
    }));
    assert.deepEqual(await far.texts(), await near.texts());
    await shot(far, 'earlier-phone');
  });

  await step('a stranger is told so', async () => {
    const stranger = await person(browser, A, `carol-${run}`, PHONE, []);
    await stranger.open();
    await until('the problem is shown', () => stranger.page.getByRole('alert').isVisible());
    await shot(stranger, 'stranger-phone');
  });

  assert.deepEqual(complaints, [], 'the page runs without errors');
}

async function person(browser, url, user, viewport, complaints) {
  const context = await browser.newContext({ viewport });
  context.setDefaultTimeout(STEP_MS_MAX);
  const page = await context.newPage();
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('console', (message) => /Content Security Policy/.test(message.text()) && complaints.push(message.text()));
  // A deployment with a real key has no dev endpoint; the page must not notice the difference here.
  if (process.env.TOKEN_SECRET) {
    await page.route('**/dev/token?**', async (route) => route.fulfill({ json: { token: await token(url, user) } }));
  }
  const texts = () => page.locator('#log li .text').allTextContents();
  return {
    page,
    context,
    texts,
    open: () => page.goto(`${url}/chat?user=${user}&conversation=${conversation}`),
    is: (state) => page.locator(`body[data-connection="${state}"]`).waitFor(),
    has: (text) => until(`${user} sees ${text}`, async () => (await texts()).includes(text)),
    sees: (expected) => until(`${user} sees exactly ${expected.join(', ')}`, async () =>
      JSON.stringify(await texts()) === JSON.stringify(expected)),
    async say(text) {
      await page.getByLabel('Message', { exact: true }).fill(text);
      await page.keyboard.press('Enter');
    },
  };
}

async function shot(side, name) {
  if (!shots) return;
  await mkdir(shots, { recursive: true });
  await side.page.screenshot({ path: `${shots}/${name}.png` });
}
