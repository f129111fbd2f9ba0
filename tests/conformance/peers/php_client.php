<?php
// A client of PHP's extension for libgearman: HOST:PORT, the function and the payload.
[, $address, $function, $payload] = $argv;
[$host, $port] = explode(':', $address);
if ($payload === '-') {
    $payload = stream_get_contents(STDIN);
}
$client = new GearmanClient();
$client->addServer($host, (int) $port);
$client->setTimeout(10000);
do {
    $result = $client->doNormal($function, $payload);
    $code = $client->returnCode();
} while (in_array($code, [GEARMAN_WORK_DATA, GEARMAN_WORK_STATUS, GEARMAN_WORK_WARNING]));
if ($code !== GEARMAN_SUCCESS) {
    fwrite(STDERR, "the job has not completed: $code, {$client->error()}\n");
    exit(1);
}
echo $result;
