// Who computes: threads of OpenMP's or of XLA's own.

#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "xla/ffi/api/ffi.h"

namespace cnn_jax {

namespace ffi = xla::ffi;

// One thread that computes everything by OpenMP, one thing after the other, each on all cores. XLA calls from several
// threads, and OpenMP would keep a team of its own for each of them, whose members spin on the cores that another team
// needs.
class Worker {
 public:
  static Worker& Get() {
    static Worker* worker = new Worker;  // lives as long as the process
    at_work_ = true;
    return *worker;
  }

  // Whether anyone has asked for it.
  static bool AtWork() { return at_work_; }

  // Runs `work` there and waits for it.
  void Run(const std::function<void()>& work) {
    std::lock_guard<std::mutex> turn(turn_);
    std::unique_lock<std::mutex> lock(lock_);
    work_ = &work;
    changed_.notify_all();
    changed_.wait(lock, [&] { return work_ == nullptr; });
  }

 private:
  Worker() {
    std::thread([this] {
      std::unique_lock<std::mutex> lock(lock_);
      while (true) {
        changed_.wait(lock, [&] { return work_ != nullptr; });
        (*work_)();
        work_ = nullptr;
        changed_.notify_all();
      }
    }).detach();
  }

  static inline std::atomic<bool> at_work_ = false;
  std::mutex turn_, lock_;
  std::condition_variable changed_;
  const std::function<void()>* work_ = nullptr;
};

constexpr int64_t kParts = 32;  // enough for some threads to end at about the same time

// Who does what needs no oneDNN: the calling thread and those of XLA's own that are free, of which it waits for none to
// wake up: what one comes too late for, others have done. Where oneDNN computes, it is OpenMP's threads: they spin for
// a while after each convolution, and others would not get a core (ResNet-50's step took 1.16 times as long).
class Team {
 public:
  explicit Team(ffi::ThreadPool& pool) : pool_(pool), size_(std::max<int64_t>(1, pool.num_threads())) {}

  // Calls work(part, first, end) for at most kParts parts of `count` things, the same ones for any number of threads.
  template <typename Work>
  void Run(int64_t count, const Work& work) const {
    const int64_t parts = std::min(count, kParts);
    auto one = [&](int64_t part) { work(part, count * part / parts, count * (part + 1) / parts); };
    if (Worker::AtWork()) {
      return Worker::Get().Run([&] {
#pragma omp parallel for schedule(static)
        for (int64_t part = 0; part < parts; ++part) one(part);
      });
    }
    struct Shared {
      std::atomic<int64_t> next, left;
    };
    auto shared = std::make_shared<Shared>();  // who comes too late still looks at it
    shared->next = 0;
    shared->left = parts;
    auto help = [shared, &one, parts] {
      for (int64_t part; (part = shared->next++) < parts; --shared->left) one(part);
    };
    for (int64_t i = 1; i < std::min(size_, parts); ++i) pool_.Schedule(std::function<void()>(help));
    help();
    while (shared->left > 0) std::this_thread::yield();
  }

 private:
  ffi::ThreadPool& pool_;
  const int64_t size_;
};

}  // namespace cnn_jax
