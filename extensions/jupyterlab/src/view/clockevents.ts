/** Fills a clock from the record of the rounds. DOM-free. */

import type { RunEvent } from '../api/types';
import type { Clock } from './clock';

const PAGE = 5000;
/** Beyond this many events the rounds already read are enough to place the others between and after them. */
const MOST = 40000;

interface Events {
  events(since: number, limit: number, kinds: string[]): Promise<{ events: RunEvent[]; next: number }>;
}

/** Read the times of the rounds; rejects when the server refuses. */
export async function readClockEvents(clock: Clock, source: Events): Promise<void> {
  const read: RunEvent[] = [];
  let since = 0;
  while (read.length < MOST) {
    const page = await source.events(since, PAGE, ['round', 'run.state']);
    read.push(...page.events);
    if (page.next <= since || !page.events.length) {
      break;
    }
    since = page.next;
  }
  clock.takeEvents(read);
}
