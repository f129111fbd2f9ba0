<?php
// A client of PHP's extension for libgearman: HOST:PORT, the function and payloads.
[, $address, $function] = $argv;
[$host, $port] = explode(':', $address);
$client = new GearmanClient();
$client->addServer($host, (int) $port);
$client->setTimeout(10000);
$payloads = array_slice($argv, 3);
$results = [];
$client->setCompleteCallback(function (GearmanTask $task, $number) use (&$results) {
    $results[$number] = $task->data();
});
foreach ($payloads as $number => $payload) {
    if ($payload === '-') {
        $payload = stream_get_contents(STDIN);
    }
    if (!$client->addTask($function, $payload, $number)) {
        fwrite(STDERR, "the job can't be submitted: {$client->error()}\n");
        exit(1);
    }
}
if (!$client->runTasks() || count($results) < count($payloads)) {
    fwrite(STDERR, "the job has not completed: {$client->error()}\n");
    exit(1);
}
ksort($results);
echo implode("\n", $results);
