/** The names of our commands; other extensions and the settings refer to them. */

export const CommandIDs = {
  showPanel: 'pluralis-lab:show-panel',
  refresh: 'pluralis-lab:refresh',
  newRun: 'pluralis-lab:new-run',
  openRun: 'pluralis-lab:open-run',
  stopRun: 'pluralis-lab:stop-run',
  resumeRun: 'pluralis-lab:resume-run',
  deleteRun: 'pluralis-lab:delete-run',
  compareRuns: 'pluralis-lab:compare-runs',
  insertCode: 'pluralis-lab:insert-code',
  copyCode: 'pluralis-lab:copy-code',
  attachWorker: 'pluralis-lab:attach-worker',
  inviteWorkers: 'pluralis-lab:invite-workers',
  detachWorker: 'pluralis-lab:detach-worker',
  killWorker: 'pluralis-lab:kill-worker',
  diskUse: 'pluralis-lab:disk-use'
} as const;
