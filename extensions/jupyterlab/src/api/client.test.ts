import type { ServerConnection } from '@jupyterlab/services';
import { describe, expect, it } from 'vitest';

import { Api, ApiRefusal } from './client';

function apiThat(answer: (path: string, init?: RequestInit) => Response | Error): { api: Api; asked: [string, RequestInit | undefined][] } {
  const asked: [string, RequestInit | undefined][] = [];
  const api = new Api({} as ServerConnection.ISettings, {
    ask: (path, init) => {
      asked.push([path, init]);
      const given = answer(path, init);
      return given instanceof Error ? Promise.reject(given) : Promise.resolve(given);
    },
    openSocket: () => {
      throw new Error('not here');
    }
  });
  return { api, asked };
}

const json = (body: unknown, status = 200) => new Response(JSON.stringify(body), { status });

describe('the client', () => {
  it('builds paths from parts that are only ever parts', async () => {
    const { api, asked } = apiThat(() => json({ process: '', text: '' }));
    await api.log('a/../b', 'worker-1?x', 50);
    await api.picture('id', 7, 100);
    await api.picture('id');
    expect(asked.map(([path]) => path)).toEqual([
      'runs/a%2F..%2Fb/log/worker-1%3Fx?lines=50',
      'runs/id/picture?points=100&since=7',
      'runs/id/picture?points=240'
    ]);
  });

  it('hands on the refusal in the words of the server', async () => {
    const { api } = apiThat(() => json({ message: 'stages=9: use <= 6', reason: 'spec' }, 400));
    await expect(api.start({ spec: {} })).rejects.toMatchObject({ message: 'stages=9: use <= 6', status: 400, reason: 'spec' });
  });

  it('makes do with the status where a proxy answered', async () => {
    const { api } = apiThat(() => new Response('<html>', { status: 502, statusText: 'Bad Gateway' }));
    await expect(api.runs()).rejects.toMatchObject({ message: '502 Bad Gateway', status: 502 });
  });

  it('says that nobody answers', async () => {
    const { api } = apiThat(() => new Error('failed to fetch'));
    const refusal = await api.runs().catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(ApiRefusal);
    expect(refusal).toMatchObject({ status: 0, reason: 'unreachable' });
  });

  it('leaves out of a new worker what the run shall choose', async () => {
    const { api, asked } = apiThat(() => json({ worker: 'worker-4', stage: 0, replica: 2, participant: 'lab-a' }, 201));
    await expect(api.attach('id', { device: 'cpu', stage: 0, account: undefined })).resolves.toMatchObject({ worker: 'worker-4' });
    expect(asked[0]).toMatchObject(['runs/id/attach', { method: 'POST', body: '{"device":"cpu","stage":0}' }]);
  });

  it('sends what an invitation is for in the body, and never in the address', async () => {
    const { api, asked } = apiThat(() => json({ invitation: 'pluralis1.x', seats: 3 }, 201));
    await expect(api.invite('id', { seats: 3, for_hours: 24 })).resolves.toMatchObject({ invitation: 'pluralis1.x' });
    expect(asked[0]).toMatchObject(['runs/id/invite', { method: 'POST', body: '{"seats":3,"for_hours":24}' }]);
  });

  it('gives a text in pieces as its lines become whole, and throws what ended it', async () => {
    const bytes = new TextEncoder().encode('{"text":"ü","is_last":false,"error":""}\n{"text":"b","is_last":true,"error":""}\n');
    const cut = (...at: number[]) =>
      new ReadableStream<Uint8Array>({
        start: stream => {
          [0, ...at].forEach((from, i) => stream.enqueue(bytes.slice(from, at[i] ?? bytes.length)));
          stream.close();
        }
      });
    const all = async (api: Api) => {
      const pieces: string[] = [];
      for await (const piece of api.generate('id', { prompt: 'a' })) {
        pieces.push(piece);
      }
      return pieces;
    };
    // In the middle of a character, and of a line.
    await expect(all(apiThat(() => new Response(cut(10, 20, 50))).api)).resolves.toEqual(['ü', 'b']);
    const ended = '{"text":"a","is_last":false,"error":""}\n{"text":"","is_last":true,"error":"it ended"}\n';
    await expect(all(apiThat(() => new Response(ended)).api)).rejects.toMatchObject({ message: 'it ended' });
    for (const broken of [new Response(bytes.slice(0, 50)), new Response(new ReadableStream({ start: stream => stream.error(new TypeError('x')) }))]) {
      await expect(all(apiThat(() => broken).api)).rejects.toMatchObject({ status: 0, reason: 'unreachable' });
    }
    await expect(all(apiThat(() => json({ message: 'no workers', reason: 'conflict' }, 409)).api)).rejects.toMatchObject({ message: 'no workers' });
  });

  it('takes an empty answer for done', async () => {
    const { api, asked } = apiThat(() => new Response(null, { status: 204 }));
    await expect(api.remove('id')).resolves.toBeUndefined();
    expect(asked[0][1]?.method).toBe('DELETE');
  });
});
