<?php
// A worker of PHP's extension for libgearman: the argument is HOST:PORT. A signal ends it.
[$host, $port] = explode(':', $argv[1]);
$worker = new GearmanWorker();
$worker->addServer($host, (int) $port);
$worker->addFunction('reverse', fn ($job) => strrev($job->workload()));
$worker->addFunction('fail', function ($job) {
    $job->sendFail();
});
$worker->addFunction('progress', function ($job) {
    $job->sendStatus(1, 2);
    $job->sendData('half');
    return $job->workload();
});
$worker->addFunction('slow', function ($job) {
    usleep(500000);
    return $job->workload();
});
// After a job that has failed it returns false, and is good for more.
while ($worker->work() || $worker->returnCode() === GEARMAN_WORK_FAIL) {
}
fwrite(STDERR, $worker->error() . "\n");
exit(1);
