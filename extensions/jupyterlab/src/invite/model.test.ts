import { nullTranslator } from '@jupyterlab/translation';
import { describe, expect, it } from 'vitest';

import { holdsText, hourOptions, isLoopback, joinLine, reachText } from './model';

const trans = nullTranslator.load('pluralis_lab');

describe('an invitation', () => {
  it('says that nobody from elsewhere can come where the run listens on this machine alone', () => {
    expect(['127.0.0.1', '127.0.1.1', '::1', '192.168.1.5', '10.127.0.1'].map(isLoopback)).toEqual([true, true, true, false, false]);
    expect(reachText('127.0.0.1', true, trans)).toContain('127.0.0.1 alone');
    expect(reachText('127.0.0.1', true, trans)).toContain('host=');
    expect(reachText('192.168.1.5', false, trans)).toContain('machines that reach that address can come');
  });

  it('is one line for a shell', () => {
    expect(joinLine('pluralis1.eyJy')).toBe('pluralis-lab join pluralis1.eyJy');
  });

  it('says for how many it is, and until when', () => {
    const until = new Date(2026, 10, 29, 14, 5).getTime() / 1000;
    expect(holdsText({ seats: 1, until }, 'en-GB', trans)).toBe('1 worker may come with it, until 29 Nov 2026, 14:05.');
    expect(holdsText({ seats: 30, until }, 'en-GB', trans)).toMatch(/^30 workers may come/);
  });

  it('holds for a number of hours that the server takes', () => {
    expect(hourOptions(trans).every(({ value }) => Number(value) > 0 && Number(value) <= 8760)).toBe(true);
  });
});
