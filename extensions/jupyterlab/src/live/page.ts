/** The browser's side of the live feeds: its sockets, timers, painting and visibility. */

import type { Api } from '../api/client';
import type { PageVisibility } from './feeds';
import type { StreamHost } from './stream';

/** A page that paints nothing (a window behind others) acknowledges after this long all the same. */
const LONGEST_PAINT_MS = 1000;

export function pageHost(api: Api, run: string, poll_s: () => number): StreamHost {
  return {
    openSocket: since => api.openLive(run, since),
    poll: since => api.picture(run, since),
    setTimer: (after_s, callback) => {
      const timer = setTimeout(callback, 1000 * after_s);
      return () => clearTimeout(timer);
    },
    afterPaint: callback => {
      let isDone = false;
      const once = () => {
        if (!isDone) {
          isDone = true;
          clearTimeout(timer);
          callback();
        }
      };
      const timer = setTimeout(once, LONGEST_PAINT_MS);
      // The views draw in the next frame; the frame after that, it is on the screen.
      requestAnimationFrame(() => requestAnimationFrame(once));
    },
    random: () => Math.random(),
    poll_s
  };
}

export const pageVisibility: PageVisibility = {
  isVisible: () => document.visibilityState !== 'hidden',
  onChange: callback => {
    document.addEventListener('visibilitychange', callback);
    return () => document.removeEventListener('visibilitychange', callback);
  }
};
