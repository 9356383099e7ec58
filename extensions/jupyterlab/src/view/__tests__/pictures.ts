import type { RunEvent, RunPicture } from '../../api/types';
import eventsJson from './recorded/events.json';
import finishedJson from './recorded/finished.json';
import midwayJson from './recorded/midway.json';

/** A run half way, as the server of one told it; a new copy each time. */
export const recorded = (): RunPicture => structuredClone(midwayJson) as unknown as RunPicture;

/** The same run when it was over. */
export const finished = (): RunPicture => structuredClone(finishedJson) as unknown as RunPicture;

/** What happened in it. */
export const events = eventsJson as unknown as RunEvent[];

/** As many copies of the recorded workers as a big run has, told apart by name, stage and replica. */
export function crowd(count: number, stages = 10): RunPicture {
  const picture = recorded();
  const model = picture.workers[0];
  picture.workers = Array.from({ length: count }, (_, i) => ({
    ...structuredClone(model),
    name: `worker-${i}`,
    stage: i % stages,
    replica: Math.floor(i / stages),
    participant: `lab-${i % 12}`
  }));
  picture.workers.sort((a, b) => a.stage - b.stage || a.replica - b.replica);
  return picture;
}
