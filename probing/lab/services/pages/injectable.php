<?php
// Answers of the database, asked in the way that is to be broken into: the visitor's words become part of the
// statement as they are. For a lab's private network only; prepared.php is the same without the mistake.
function rows(mysqli $shop, string $statement, array $words): array
{
    $parts = explode('?', $statement);
    $asked = array_shift($parts);
    foreach ($words as $k => $word) {
        $asked .= "'" . $word . "'" . $parts[$k];
    }
    $found = $shop->query($asked);
    return $found instanceof mysqli_result ? $found->fetch_all() : [];
}
