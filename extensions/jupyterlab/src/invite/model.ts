/** What an invitation is, in words: whom it reaches, how long it holds, how it is used. No page. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { Invited } from '../api/types';
import type { Option } from '../asking/fields';

export function hourOptions(trans: TranslationBundle): Option[] {
  return [
    { value: '1', text: trans.__('one hour') },
    { value: '24', text: trans.__('one day') },
    { value: '168', text: trans.__('one week') },
    { value: '720', text: trans.__('30 days') }
  ];
}

/** Whether only processes of the machine itself reach an address. */
export function isLoopback(host: string): boolean {
  return host.startsWith('127.') || host === '::1';
}

/** Who can come at all: a run listens where it was launched to, and nowhere else. */
export function reachText(host: string, isLocal: boolean, trans: TranslationBundle): string {
  return isLocal
    ? trans.__(
        'This run listens on %1 alone: only shells of this machine can come. A run for other machines is launched with host=, an address of this one that they reach: pl.launch(spec, host="192.168.1.5").',
        host
      )
    : trans.__('This run listens at %1: machines that reach that address can come, over TLS.', host);
}

/** What is typed in a shell of the machine that joins; an invitation has no character that a shell takes for its own. */
export function joinLine(invitation: string): string {
  return `pluralis-lab join ${invitation}`;
}

/** How many may come with it, and how long. */
export function holdsText({ seats, until }: Pick<Invited, 'seats' | 'until'>, locale: string | undefined, trans: TranslationBundle): string {
  const when = new Date(1000 * until).toLocaleString(locale, { dateStyle: 'medium', timeStyle: 'short' });
  return trans._n('%1 worker may come with it, until %2.', '%1 workers may come with it, until %2.', seats, when);
}
